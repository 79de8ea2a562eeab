//! A process that starts while the registry is away begins with what the one before it knew.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tempfile::TempDir;
use tower_mesh::{
    Config, Mesh, Status,
    core::{Empties, Resolve, ResolveError, ServiceName, Update, Updates},
    discovery::Static,
};

use crate::support::{Server, name, until};

/// A registry that is away; or one that is back, and has forgotten everything.
#[derive(Clone, Copy)]
enum Away {
    Refuses,
    IsSilent,
    IsEmpty,
}

impl Resolve for Away {
    fn resolve(&self, _: &ServiceName) -> Updates {
        match self {
            Self::Refuses => {
                let error = async { Err(ResolveError::new("connection refused")) };
                Box::pin(stream::once(error).chain(stream::pending()))
            }
            Self::IsSilent => Box::pin(stream::pending()),
            Self::IsEmpty => {
                let empty = async { Ok(Update::Replace(Vec::new())) };
                Box::pin(stream::once(empty).chain(stream::pending()))
            }
        }
    }

    fn empties(&self) -> Empties {
        Empties::Suspect
    }

    fn name(&self) -> &'static str {
        "away"
    }
}

struct Memory(TempDir);

impl Memory {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("mesh.memory")
    }

    async fn mesh(&self, source: impl Resolve) -> Mesh {
        start(&self.file(), source).await
    }

    /// A process that knows `server` as `orders`, calls it and ends.
    async fn of_a_process_that_called(server: &Server) -> Self {
        let memory = Self::new();
        let endpoint = server.endpoint().with_tag("canary").with_zone("eu");
        let known = Static::new().service(name("orders"), [endpoint]);
        let mesh = memory.mesh(known).await;
        call(&mesh).await.unwrap();
        mesh.shutdown(Duration::from_secs(5)).await.unwrap();
        memory
    }

    /// The names of the files there.
    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.0.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

async fn start(file: &Path, source: impl Resolve) -> Mesh {
    let text = format!("service = \"shop\"\ndiscovery.remember = {file:?}");
    let config = Config::parse(&text).unwrap();
    let mesh = Mesh::builder("").config(config).discovery(source);
    mesh.start().await.unwrap()
}

async fn call(mesh: &Mesh) -> Result<u16, tower_mesh::Error> {
    let response = mesh.service("orders")?.get("/").await?;
    Ok(response.status().as_u16())
}

fn error(status: &Status) -> String {
    let remember = status.remember.clone().unwrap();
    remember.error.unwrap_or_default()
}

#[tokio::test]
async fn with_the_registry_away_a_process_calls_whom_the_one_before_it_called() {
    let server = Server::answering(200, "here").await;
    let memory = Memory::of_a_process_that_called(&server).await;
    for away in [Away::Refuses, Away::IsSilent] {
        let mesh = memory.mesh(away).await;
        assert_eq!(call(&mesh).await.unwrap(), 200);
        let status = mesh.status();
        let orders = &status.services[0];
        assert_eq!(orders.endpoints[0].zone.as_deref(), Some("eu"));
        let found = &orders.discovery;
        assert!(found.suspect && found.remembered.is_some(), "{found:?}");
        until("the status says why", || {
            let error = mesh.status().services[0].discovery.error.clone();
            error.is_some_and(|error| error.contains("which were remembered"))
        })
        .await;
        // It is known for as long as before, however often it is written.
        mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_comes_back_empty_is_not_believed_at_once() {
    let server = Server::answering(200, "here").await;
    let memory = Memory::of_a_process_that_called(&server).await;
    let mesh = memory.mesh(Away::IsEmpty).await;
    assert_eq!(call(&mesh).await.unwrap(), 200);
    until("it is suspect", || {
        mesh.status().services[0].discovery.suspect
    })
    .await;
}

#[tokio::test]
async fn an_authority_is_believed_whatever_is_remembered() {
    let server = Server::answering(200, "here").await;
    let memory = Memory::of_a_process_that_called(&server).await;
    let mesh = memory.mesh(Static::new()).await;
    assert!(call(&mesh).await.unwrap_err().is_service_not_found());
    // And what it has taken back is not remembered any more.
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    let mesh = memory.mesh(Away::Refuses).await;
    assert_eq!(mesh.status().remember.unwrap().services, 0);
}

#[tokio::test]
async fn a_file_that_is_damaged_is_reported_and_replaced() {
    let server = Server::answering(200, "here").await;
    let memory = Memory::of_a_process_that_called(&server).await;
    let whole = fs::read_to_string(memory.file()).unwrap();
    let other = whole.replacen("memory 1 ", "memory 9 ", 1);
    let bad = whole.replacen("canary", "Canary", 1);
    for (text, says) in [
        (&whole[..whole.len() / 2], "it is not whole"),
        (&other, "of another version"),
        (&bad, "its checksum is another"),
        ("", "it has no first line"),
    ] {
        fs::write(memory.file(), text).unwrap();
        let mesh = memory
            .mesh(Static::new().service(name("orders"), [server.endpoint()]))
            .await;
        let error = error(&mesh.status());
        assert!(error.contains(says), "{error}");
        assert_eq!(
            call(&mesh).await.unwrap(),
            200,
            "it is no reason not to start"
        );
        mesh.shutdown(Duration::from_secs(5)).await.unwrap();
        let mesh = memory.mesh(Away::Refuses).await;
        assert_eq!(call(&mesh).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_file_that_is_somebody_elses_is_reported_and_left_alone() {
    let server = Server::answering(200, "here").await;
    let memory = Memory::new();
    fs::write(memory.file(), "a diary").unwrap();
    let mesh = memory
        .mesh(Static::new().service(name("orders"), [server.endpoint()]))
        .await;
    assert_eq!(call(&mesh).await.unwrap(), 200);
    assert!(error(&mesh.status()).contains("somebody else's"));
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(fs::read_to_string(memory.file()).unwrap(), "a diary");
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_nothing_is_left_beside_it() {
    let server = Server::answering(200, "here").await;
    let memory = Memory::of_a_process_that_called(&server).await;
    assert_eq!(memory.files(), ["mesh.memory"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(memory.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn where_nothing_can_be_written_the_status_says_so_and_calls_go_on() {
    let server = Server::answering(200, "here").await;
    let nowhere = Memory::new().file();
    let mesh = start(
        &nowhere,
        Static::new().service(name("orders"), [server.endpoint()]),
    )
    .await;
    assert_eq!(call(&mesh).await.unwrap(), 200);
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(error(&mesh.status()).contains("it cannot be written"));
}
