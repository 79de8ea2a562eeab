use super::*;

fn refused(text: &str) -> String {
    Config::parse(text)
        .expect_err("it was accepted")
        .to_string()
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let docs = include_str!("mod.rs");
    let example: String = docs
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
        .collect();
    let config = Config::parse(&example).unwrap();
    let orders = ServiceName::new("orders").unwrap();
    assert_eq!(config.discovery.endpoints[&orders].len(), 2);
    let policy = config.services[&orders].over(&config.defaults.over(&Policy::default()));
    assert_eq!(policy.timeout, Duration::from_secs(2));
    assert_eq!(policy.health.check, Check::Http);
    assert_eq!(policy.subset.size.map(NonZeroUsize::get), Some(20));
    assert_eq!((policy.hash.seed, policy.hash.capacity), (7, 1.5));
    assert_eq!(policy.hash.header.unwrap(), "x-user");
    assert_eq!(policy.retry.per_try_timeout, Some(Duration::from_secs(2)));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_valid_one_and_its_line() {
    assert_eq!(
        refused("service = \"shop\"\n\n[defaults]\ntimout = \"2s\"\n"),
        "configuration, line 4, `defaults.timout`: `timout` does not exist, did you mean `timeout`? \
         (there are profile, timeout, balance, min_nearby, subset, hash, panic, retry, breaker, ejection, health, slow_start, hedge, limit, tls, operations)"
    );
    assert!(refused("[discovery]\nkind = \"statik\"").contains("did you mean `static`?"));
}

#[test]
fn values_that_cannot_be_are_refused_where_they_stand() {
    for (text, says) in [
        (
            "defaults.timeout = \"0s\"",
            "line 1, `defaults.timeout`: a duration must be above zero",
        ),
        ("defaults.timeout = \"-1s\"", "is no duration"),
        ("defaults.timeout = \"10\"", "is no duration"),
        (
            "defaults.timeout = \"99999999999999999999s\"",
            "is no duration",
        ),
        ("defaults.timeout = \"400days\"", "longer than a year"),
        (
            "defaults.timeout = 10",
            "`defaults.timeout`: invalid type: integer `10`, expected a string",
        ),
        ("defaults.retry.budget = 1.5", "must be between 0 and 1"),
        ("defaults.retry.budget = nan", "must be between 0 and 1"),
        ("defaults.panic.max_out = 1.5", "must be between 0 and 1"),
        (
            "defaults.panic.min_healthy = -1",
            "`defaults.panic.min_healthy`",
        ),
        ("defaults.min_nearby = -1", "`defaults.min_nearby`"),
        ("defaults.subset.size = 0", "`defaults.subset.size`"),
        (
            "defaults.subset.sice = 5",
            "did you mean `size`? (there are size, client)",
        ),
        (
            "defaults.hash.header = \"x user\"",
            "`defaults.hash.header`: \"x user\" is no name of a header",
        ),
        (
            "defaults.hash.capacity = 0.5",
            "`defaults.hash.capacity`: with less than an equal share each",
        ),
        ("defaults.hash.capacity = inf", "`defaults.hash.capacity`"),
        ("defaults.hash.capacity = nan", "`defaults.hash.capacity`"),
        ("defaults.hash.seed = -1", "`defaults.hash.seed`"),
        ("defaults.retry.attempts = 0", "`defaults.retry.attempts`"),
        (
            "defaults.limit.max_in_flight = 0",
            "`defaults.limit.max_in_flight`",
        ),
        (
            "defaults.balance = \"magic\"",
            "one of best-of-three, peak-ewma",
        ),
        (
            "defaults.health.check = \"magic\"",
            "one of none, tcp, http, grpc",
        ),
        ("defaults.health.path = \"healthz\"", "is no path"),
        (
            "defaults.health.interval = \"0s\"",
            "`defaults.health.interval`: a duration must be above zero",
        ),
        (
            "defaults.health.healthy_after = 0",
            "`defaults.health.healthy_after`",
        ),
        (
            "defaults.health.check = \"http\"",
            "`defaults.health.path`: `http` has to be told what to ask for",
        ),
        (
            "services.a.profile = \"magic\"",
            "one of internal, external, batch",
        ),
        ("service = \"a/b\"", "'/' is not allowed"),
        ("[services.\"a b\"]", "' ' is not allowed"),
        (
            "discovery.endpoints.a = [{ address = \"here\" }]",
            "`discovery.endpoints.a.address`",
        ),
        (
            "discovery.endpoints.a = [{ address = \"127.0.0.1:1\", weight = -1 }]",
            "weight",
        ),
        (
            "services.a.operations.x.path = \"x\"",
            "must start with a slash",
        ),
        (
            "services.a.operations.x.method = \"G T\"",
            "is no HTTP method",
        ),
        ("[defaults", "line 1"),
    ] {
        let error = refused(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_by_key_and_line() {
    let error = refused("[services.a]\ntimeout = \"1s\"\n\nretry.per_try_timeout = \"2s\"\n");
    assert!(
        error.starts_with("configuration, line 4, `services.a.retry.per_try_timeout`: "),
        "{error}"
    );
    assert!(
        refused("defaults.retry = { backoff = \"2s\", max_backoff = \"1s\" }")
            .contains("defaults.retry.max_backoff")
    );
    assert!(
        refused("[defaults.panic]\nmax_out = 0.0\n")
            .contains("line 2, `defaults.panic.max_out`: a share of zero")
    );
    assert!(refused("[defaults.operations.x]").contains("belongs to a service"));
    assert!(refused("discovery.endpoints.a = []").contains("kind = \"static\""));
}

#[test]
fn what_a_server_cannot_be_is_refused_by_key_and_line() {
    for (text, says) in [
        (
            "timeout = \"0s\"",
            "line 2, `server.timeout`: a duration must be above zero",
        ),
        ("max_in_flight = 0", "line 2, `server.max_in_flight`: "),
        (
            "believe_priority = \"high\"",
            "\"high\" is no priority, but one of critical, default, sheddable",
        ),
        ("adaptive = 1", "line 2, `server.adaptive`: "),
        (
            "tiemout = \"1s\"",
            "`tiemout` does not exist, did you mean `timeout`?",
        ),
        (
            "token_env = \"A\"\ntoken_file = \"b\"",
            "line 3, `server.token_file`: the token comes from a file or from the environment",
        ),
        (
            "token_env = \"\"",
            "line 2, `server.token_env`: it is empty",
        ),
        ("token_file = \"/\"", "line 2, `server.token_file`: "),
        ("token = \"secret\"", "`token` does not exist"),
        (
            "grpc_services = [\"\"]",
            "line 2, `server.grpc_services`: a service has a name",
        ),
    ] {
        let error = refused(&format!("[server]\n{text}\n"));
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn how_many_may_be_out_is_said_for_one_service_over_the_defaults() {
    let text = "[defaults.panic]\nmax_out = 0.3\n\n[services.a.panic]\nmin_healthy = 2\n";
    let config = Config::parse(text).unwrap();
    let a = &config.services[&ServiceName::new("a").unwrap()];
    let policy = a.over(&config.defaults.over(&Policy::default()));
    assert_eq!(policy.panic.max_out, Ratio::percent(30));
    assert_eq!(policy.panic.min_healthy, 2);
}

#[test]
fn a_profile_is_where_a_service_begins_and_what_is_said_beside_it_goes_before() {
    let text =
        "[defaults]\ntimeout = \"1s\"\n\n[services.a]\nprofile = \"batch\"\nlimit.queue = 5\n";
    let config = Config::parse(text).unwrap();
    let a = &config.services[&ServiceName::new("a").unwrap()];
    let policy = a.over(&config.defaults.over(&Policy::default()));
    let mut batch = crate::Profile::Batch.policy();
    batch.limit.queue = 5;
    assert_eq!(policy, batch);
}

#[test]
#[cfg(all(feature = "consul", feature = "dns", feature = "file"))]
fn every_example_of_the_documentation_is_valid() {
    let docs = include_str!("mod.rs");
    let examples: Vec<_> = docs.split("//! ```toml\n").skip(1).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        let lines = example.lines().take_while(|line| *line != "//! ```");
        let text: String = lines
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
            .collect();
        Config::parse(&text).unwrap();
    }
}

#[test]
fn a_source_that_cannot_be_is_refused_by_key_and_line() {
    for (text, says) in [
        (
            "kind = []",
            "line 2, `discovery.kind`: there has to be a source",
        ),
        ("kind = [\"static\", \"static\"]", "stands there twice"),
        (
            "kind = [\"memory\", \"statik\"]",
            "line 2, `discovery.kind`: `statik` does not exist, did you mean `static`?",
        ),
        ("kind = 5", "expected a string or a list of strings"),
        (
            "\nfile.path = \"x\"",
            "line 3, `discovery.file`: it is not used",
        ),
        (
            "\nconsul.wait = \"1s\"",
            "line 3, `discovery.consul`: it is not used",
        ),
        (
            "\ndns.name = \"{service}\"",
            "line 3, `discovery.dns`: it is not used",
        ),
    ] {
        let error = refused(&format!("[discovery]\n{text}"));
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
#[cfg(all(feature = "consul", feature = "file"))]
fn what_a_file_or_consul_is_told_is_checked_before_anything_starts() {
    for (text, says) in [
        (
            "kind = \"file\"",
            "line 2, `discovery.kind`: \"file\" needs to know which",
        ),
        (
            "kind = \"file\"\nfile = {}",
            "line 3, `discovery.file`: missing field `path`",
        ),
        (
            "kind = \"file\"\nfile.path = \"\"",
            "line 3, `discovery.file.path`: it is empty",
        ),
        (
            "kind = \"file\"\nfile.path = \"x\"\nfile.pth = \"y\"",
            "did you mean `path`?",
        ),
        (
            "kind = \"consul\"\nconsul.address = []",
            "line 3, `discovery.consul.address`: there has to be",
        ),
        (
            "kind = \"consul\"\nconsul.address = \"unix://a\"",
            "line 3, `discovery.consul.address`: ",
        ),
        (
            "kind = \"consul\"\nconsul.max_held = 0",
            "line 3, `discovery.consul.max_held`",
        ),
        (
            "kind = \"consul\"\nconsul.wait = \"0s\"",
            "a duration must be above zero",
        ),
        (
            "kind = \"consul\"\nconsul.adress = \"a\"",
            "did you mean `address`?",
        ),
        (
            "kind = \"consul\"\nconsul.token_env = \"A\"\nconsul.token_file = \"b\"",
            "line 4, `discovery.consul.token_file`: the token comes from",
        ),
    ] {
        let error = refused(&format!("[discovery]\n{text}"));
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
#[cfg(feature = "dns")]
fn what_dns_is_told_is_checked_before_anything_starts() {
    let by_name = "dns.name = \"{service}.example\"";
    for (text, says) in [
        (
            "",
            "line 2, `discovery.kind`: \"dns\" needs to know what to ask for",
        ),
        (
            "dns.transport = \"tcp\"",
            "line 3, `discovery.dns`: it does not say what to ask for",
        ),
        (
            "dns.port = 80",
            "line 3, `discovery.dns.port`: it is the port of a name",
        ),
        (
            "dns.name = \"orders.example\"",
            "line 3, `discovery.dns.name`: every service would be the same",
        ),
        (
            "dns.name = \"{service}..example\"",
            "line 3, `discovery.dns.name`: \"service..example\" is no name of DNS",
        ),
        (
            "dns.name = \"{service}.{region}\"",
            "has braces that are not those of",
        ),
        (
            "dns.services.a.name = \"a b\"",
            "line 3, `discovery.dns.services.a.name`: ",
        ),
        (
            &format!("{by_name}\ndns.port = 0"),
            "line 4, `discovery.dns.port`",
        ),
        (
            &format!("{by_name}\ndns.servers = []"),
            "line 4, `discovery.dns.servers`: there has to be a server",
        ),
        (
            &format!("{by_name}\ndns.servers = [\"10.0.0.2\", \"ns.example\"]"),
            "line 4, `discovery.dns.servers`: \"ns.example\" is no address",
        ),
        (
            &format!("{by_name}\ndns.transport = \"tpc\""),
            "did you mean `tcp`?",
        ),
        (
            &format!("{by_name}\ndns.min_ttl = \"2m\"\ndns.max_ttl = \"1m\""),
            "line 4, `discovery.dns.min_ttl`: it cannot be longer",
        ),
    ] {
        let error = refused(&format!("[discovery]\nkind = \"dns\"\n{text}"));
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
#[cfg(feature = "dns")]
fn what_dns_is_told_is_what_it_does() {
    let text = "[discovery]\nkind = \"dns\"\n[discovery.dns]\nservers = [\"10.0.0.2\", \"127.0.0.1:8600\"]\n\
                name = \"{service}.service.consul\"\ntransport = \"udp\"\n[discovery.dns.services]\n\
                billing = { name = \"billing.example\", port = 443 }";
    let config = Config::parse(text).unwrap();
    let dns = format!("{:?}", config.discovery.dns.unwrap().source().unwrap());
    for word in [
        "10.0.0.2:53",
        "127.0.0.1:8600",
        "SRV {service}.service.consul",
        "Udp",
        "\"billing\": A and AAAA billing.example, port 443",
    ] {
        assert!(dns.contains(word), "{word}: {dns}");
    }
}

/// Asked of a build that has none of them, whatever this one has.
#[test]
fn a_kind_that_is_not_built_in_says_which_feature_to_switch_on() {
    for kind in ["consul", "dns", "file"] {
        let text = format!("kind = [\"memory\", \"{kind}\"]");
        let config: DiscoveryConfig = toml::from_str(&text).unwrap();
        let error = config.validate_kinds(|kind| kind == DiscoveryKind::Memory);
        let error = error.unwrap_err().to_string();
        let what = format!("switch on the feature `{kind}` of tower-mesh");
        assert!(error.contains(&what), "{error}");
        assert!(config.validate_kinds(|_| true).is_ok());
    }
}

/// Whatever is mistaken for the place of a secret, what stands there is not repeated.
#[test]
#[cfg(feature = "consul")]
fn a_secret_in_the_wrong_place_is_not_told() {
    for text in [
        "consul.token = \"5ec2e7-canary\"",
        "consul.address = \"http://me:5ec2e7-canary@consul:8500\"",
        "consul.address = [\"consul\", \"http://me:5ec2e7-canary@consul:8500\"]",
        "consul.token_file = [\"5ec2e7-canary\"]",
    ] {
        let error = Config::parse(&format!("[discovery]\nkind = \"consul\"\n{text}")).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains("canary"), "{told}");
    }
}
