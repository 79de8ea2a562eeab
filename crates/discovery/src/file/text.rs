//! What a file says: services and their endpoints.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Deserializer, de};
use tower_mesh_core::{Endpoint, ServiceName, Weight};

/// The endpoints of each service.
pub(crate) type Services = BTreeMap<ServiceName, Vec<Endpoint>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Toml,
    Json,
}

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// From 1; none if no line is to blame.
    line: Option<usize>,
    /// Such as `orders[1].weight`; empty if none is to blame.
    key: String,
    what: String,
}

/// More than this of a message is somebody else's text.
const TEXT: usize = 200;

/// Reads a whole file.
pub(crate) fn read(text: &str, format: Format) -> Result<Services, Mistake> {
    let described: BTreeMap<Name, Vec<Described>> = match format {
        Format::Toml => toml(text)?,
        Format::Json => json(text)?,
    };
    let services = described.into_iter().map(|(name, endpoints)| {
        let endpoints = endpoints.into_iter().map(Described::endpoint).collect();
        (name.0, endpoints)
    });
    Ok(services.collect())
}

fn toml<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Mistake> {
    let mistake = |error: &toml::de::Error, key: String| Mistake {
        line: error.span().map(|span| line_of(text, span.start)),
        key,
        what: short(error.message()),
    };
    let de = toml::Deserializer::parse(text).map_err(|error| mistake(&error, String::new()))?;
    serde_path_to_error::deserialize(de)
        .map_err(|error| mistake(error.inner(), error.path().to_string()))
}

fn json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Mistake> {
    let mistake = |error: &serde_json::Error, key: String| Mistake {
        line: Some(error.line()).filter(|line| *line > 0),
        key,
        what: short(&error.to_string()),
    };
    let mut de = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut de)
        .map_err(|error| mistake(error.inner(), error.path().to_string()))?;
    de.end().map_err(|error| mistake(&error, String::new()))?;
    Ok(read)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn short(message: &str) -> String {
    message.chars().take(TEXT).collect()
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        // serde's word for the whole text.
        if !self.key.is_empty() && self.key != "." {
            write!(f, ", `{}`", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name(ServiceName);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let name = String::deserialize(de)?;
        ServiceName::new(&name).map(Self).map_err(de::Error::custom)
    }
}

/// One endpoint, as in `[discovery.endpoints]` of the mesh's configuration, with priority and metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    address: SocketAddr,
    id: Option<String>,
    weight: Option<u16>,
    priority: Option<u8>,
    zone: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl Described {
    fn endpoint(self) -> Endpoint {
        let mut endpoint = Endpoint::new(self.address).with_priority(self.priority.unwrap_or(0));
        if let Some(id) = &self.id {
            endpoint = endpoint.with_id(id);
        }
        if let Some(weight) = self.weight {
            endpoint = endpoint.with_weight(Weight::new(weight));
        }
        if let Some(zone) = &self.zone {
            endpoint = endpoint.with_zone(zone);
        }
        for tag in &self.tags {
            endpoint = endpoint.with_tag(tag);
        }
        let metadata = self.metadata.iter();
        metadata.fold(endpoint, |e, (key, value)| e.with_metadata(key, value))
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = r#"
            orders = [
              { address = "10.0.0.7:80", weight = 3, zone = "a", tags = ["x", "y"] },
              { address = "[::1]:81", id = "two", priority = 1, metadata = { version = "2" } },
            ]
            carts = []
        "#;
        let json = r#"{
            "orders": [
              { "address": "10.0.0.7:80", "weight": 3, "zone": "a", "tags": ["x", "y"] },
              { "address": "[::1]:81", "id": "two", "priority": 1, "metadata": { "version": "2" } }
            ],
            "carts": []
        }"#;
        let toml = read(toml, Format::Toml).unwrap();
        let json = read(json, Format::Json).unwrap();
        let expected = [
            Endpoint::new("10.0.0.7:80".parse().unwrap())
                .with_weight(Weight::new(3))
                .with_zone("a")
                .with_tag("x")
                .with_tag("y"),
            Endpoint::new("[::1]:81".parse().unwrap())
                .with_id("two")
                .with_priority(1)
                .with_metadata("version", "2"),
        ];
        for services in [toml, json] {
            let same = |(a, b): (&Endpoint, &Endpoint)| a == b && a.same_description(b);
            assert!(services["orders"].iter().zip(&expected).all(same));
            assert_eq!(services["orders"].len(), 2);
            assert_eq!(services.len(), 2, "a service without endpoints is there");
        }
    }

    /// Rows 4 to 8 of reference/performance.md (f), as far as they are a file's.
    #[test]
    fn a_mistake_is_told_with_its_line_and_its_key() {
        let cases = [
            ("weight = -1", "orders[1].weight"),
            ("weight = nan", "orders[1].weight"),
            ("weight = 1e308", "orders[1].weight"),
            ("weight = 65536", "orders[1].weight"),
            ("weight = 0.5", "orders[1].weight"),
            ("wieght = 1", "orders[1].wieght"),
            ("address = \"here\"", "orders[1].address"),
            ("address = \"db.example:80\"", "orders[1].address"),
            ("priority = 256", "orders[1].priority"),
        ];
        for (wrong, key) in cases {
            let address = match wrong.starts_with("address") {
                true => "",
                false => "address = \"10.0.0.8:80\", ",
            };
            let text = format!(
                "orders = [\n  {{ address = \"10.0.0.7:80\" }},\n  {{ {address}{wrong} }},\n]"
            );
            let told = read(&text, Format::Toml).unwrap_err().to_string();
            assert!(told.contains("line 3") && told.contains(key), "{told}");
        }
        let json =
            "{\n  \"orders\": [\n    { \"address\": \"10.0.0.7:80\", \"weight\": -1 }\n  ]\n}";
        let told = read(json, Format::Json).unwrap_err().to_string();
        assert!(
            told.contains("line 3") && told.contains("orders[0].weight"),
            "{told}"
        );
    }

    #[test]
    fn what_is_no_text_of_its_format_is_told_with_its_line() {
        for (text, format) in [
            ("orders = []\norders = []", Format::Toml),
            ("a = []\norders = [", Format::Toml),
            ("{ \"orders\":\n [", Format::Json),
            ("{}\n{}", Format::Json),
        ] {
            let told = read(text, format).unwrap_err().to_string();
            assert!(told.contains("line 2"), "{text:?}: {told}");
        }
        let told = read("\"a/b\" = []", Format::Toml).unwrap_err().to_string();
        assert!(told.contains("a/b"), "{told}");
    }
}
