//! Probes, and endpoints that are well, unwell and hostile.

use std::{future::pending, io, time::Duration};

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, Response, uri::PathAndQuery};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tower_mesh_core::Endpoint;
use tower_mesh_http::{GrpcProbe, HttpProbe, ProbeError};

use crate::support::{answer, nobody, read_head, serve};

fn healthz() -> HttpProbe {
    HttpProbe::new(PathAndQuery::from_static("/healthz?full"))
}

/// Whether it has failed, at once, and why.
fn failed(answer: Result<(), ProbeError>) -> (bool, String) {
    let error = answer.unwrap_err();
    (error.is_definite(), error.to_string())
}

#[tokio::test]
async fn a_path_is_asked_for_once_at_the_host_that_was_said_and_the_connection_ends_with_the_check()
{
    let (heads, mut seen) = mpsc::unbounded_channel();
    let endpoint = serve(move |mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await?).unwrap();
            // A body that never ends is none of a probe's business.
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            let rest = stream.read_to_end(&mut Vec::new()).await;
            heads.send(format!("{rest:?}")).unwrap();
            Ok(())
        }
    })
    .await;
    healthz().check(&endpoint).await.unwrap();
    let head = seen.recv().await.unwrap();
    assert!(head.starts_with("GET /healthz?full HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", endpoint.address())));
    assert_eq!(seen.recv().await.unwrap(), "Ok(0)");

    let host = "orders.example".parse().unwrap();
    healthz().host(host).check(&endpoint).await.unwrap();
    let head = seen.recv().await.unwrap();
    assert!(head.contains("host: orders.example\r\n"), "{head}");
}

#[tokio::test]
async fn a_status_that_is_not_expected_is_an_answer_and_counts_at_once() {
    for (response, status) in [
        ("HTTP/1.1 503 Busy\r\n\r\n", 503),
        ("HTTP/1.1 404 Where\r\ncontent-length: 0\r\n\r\n", 404),
        ("HTTP/1.1 302 Away\r\nlocation: /\r\n\r\n", 302),
        ("HTTP/1.1 200 OK\r\n\r\n", 200),
        ("HTTP/1.1 204 Nothing\r\n\r\n", 204),
    ] {
        let endpoint = answer(response).await;
        let is_well = healthz().check(&endpoint).await;
        if status < 300 {
            is_well.unwrap();
        } else {
            assert_eq!(failed(is_well), (true, format!("it answered {status}")));
        }
        let own = healthz().expect(503..=503).check(&endpoint).await;
        assert_eq!(own.is_ok(), status == 503, "{status}");
    }
}

#[tokio::test]
async fn no_answer_is_a_failure_that_does_not_count_at_once() {
    let (definite, why) = failed(healthz().check(&nobody().await).await);
    assert!(!definite && why.starts_with("no connection: "), "{why}");
    for response in [
        "",
        "HTTP/1.1",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\n",
    ] {
        let endpoint = answer(response).await;
        let (definite, why) = failed(healthz().check(&endpoint).await);
        assert!(!definite, "{response:?}: {why}");
        assert!(why.starts_with("the connection broke: "), "{why}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_given_up() {
    let endpoint = serve(async |mut stream: TcpStream| {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            stream.write_all(b"x-more: and more and more\r\n").await?;
        }
    })
    .await;
    let (definite, why) = failed(healthz().check(&endpoint).await);
    assert!(!definite, "{why}");
}

#[tokio::test]
async fn another_port_of_the_same_host_may_be_asked() {
    let (there, elsewhere) = (nobody().await, answer("HTTP/1.1 200 OK\r\n\r\n").await);
    let probe = healthz().port(elsewhere.address().port());
    probe.check(&there).await.unwrap();
}

#[tokio::test]
async fn a_check_that_is_dropped_closes_its_connection() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let endpoint = serve(move |mut stream| {
        let ends = ends.clone();
        async move {
            read_head(&mut stream).await?;
            ends.send("asked").unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            ends.send("closed").unwrap();
            Ok(())
        }
    })
    .await;
    let mut check = Box::pin(healthz().check(&endpoint));
    tokio::select! {
        _ = &mut check => panic!("nobody has answered"),
        asked = ended.recv() => assert_eq!(asked, Some("asked")),
    }
    drop(check);
    assert_eq!(ended.recv().await, Some("closed"));
}

/// What a gRPC server answers: a status in its head alone, or a body and trailers.
#[derive(Clone)]
struct Answer {
    status: u16,
    head: &'static [(&'static str, &'static str)],
    body: Option<Bytes>,
    trailers: Option<&'static str>,
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

impl Answer {
    /// As a health service answers.
    fn serving(status: &'static [u8]) -> Self {
        let frame = [&[0, 0, 0, 0, status.len() as u8], status].concat();
        Self {
            status: 200,
            head: &[GRPC],
            body: Some(frame.into()),
            trailers: Some("0"),
        }
    }

    fn head(status: u16, head: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            status,
            head,
            body: None,
            trailers: None,
        }
    }

    /// Serves it to every call, and tells what was asked.
    async fn serve(self) -> (Endpoint, mpsc::UnboundedReceiver<(String, Bytes)>) {
        let (asked, seen) = mpsc::unbounded_channel();
        let endpoint = serve(move |stream| {
            let (this, asked) = (self.clone(), asked.clone());
            async move { this.speak(stream, &asked).await.map_err(io::Error::other) }
        })
        .await;
        (endpoint, seen)
    }

    async fn speak(
        self,
        stream: TcpStream,
        asked: &mpsc::UnboundedSender<(String, Bytes)>,
    ) -> Result<(), h2::Error> {
        let mut connection = server::handshake(stream).await?;
        let Some(call) = connection.accept().await else {
            return Ok(());
        };
        let (request, mut respond) = call?;
        let (head, mut body) = request.into_parts();
        let read = async { body.data().await.transpose() };
        let message = tokio::select! {
            message = read => message?.unwrap_or_default(),
            _ = connection.accept() => return Ok(()),
        };
        let fields = format!("{} {} {:?}", head.method, head.uri, head.headers.get("te"));
        asked.send((fields, message)).unwrap();
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.head {
            response = response.header(*name, *value);
        }
        let ended = self.body.is_none() && self.trailers.is_none();
        let mut send = respond.send_response(response.body(()).unwrap(), ended)?;
        if let Some(body) = self.body {
            send.send_data(body, self.trailers.is_none())?;
        }
        if let Some(status) = self.trailers {
            let fields = [("grpc-status".parse().unwrap(), status.parse().unwrap())];
            send.send_trailers(HeaderMap::from_iter(fields))?;
        }
        while connection.accept().await.is_some() {}
        Ok(())
    }
}

async fn grpc(answer: Answer) -> Result<(), ProbeError> {
    let (endpoint, _seen) = answer.serve().await;
    GrpcProbe::new().check(&endpoint).await
}

#[tokio::test]
async fn the_health_service_is_asked_as_grpc_says() {
    let (endpoint, mut seen) = Answer::serving(b"\x08\x01").serve().await;
    GrpcProbe::new().check(&endpoint).await.unwrap();
    let url = format!("http://{}/grpc.health.v1.Health/Check", endpoint.address());
    let fields = format!("POST {url} Some(\"trailers\")");
    let empty = Bytes::from_static(&[0; 5]);
    assert_eq!(seen.recv().await.unwrap(), (fields.clone(), empty));

    let orders = GrpcProbe::new().service("shop.Orders");
    orders.check(&endpoint).await.unwrap();
    let named = Bytes::from_static(b"\0\0\0\0\x0d\x0a\x0bshop.Orders");
    assert_eq!(seen.recv().await.unwrap(), (fields, named));
}

#[tokio::test]
async fn a_serving_status_is_believed_at_once_and_other_codes_are_failures() {
    grpc(Answer::serving(b"\x08\x01")).await.unwrap();
    for (status, says) in [
        (&b"\x08\x02"[..], "it says that it is not serving"),
        (b"\x08\x03", "it does not know the service"),
        (b"", "it does not say that it is serving"),
    ] {
        let answer = grpc(Answer::serving(status)).await;
        assert_eq!(failed(answer), (true, says.to_owned()));
    }
    for (head, says) in [
        (
            &[GRPC, ("grpc-status", "5")],
            "it answered with grpc-status 5",
        ),
        (
            &[GRPC, ("grpc-status", "14")],
            "it answered with grpc-status 14",
        ),
        (
            &[GRPC, ("grpc-status", "0")],
            "its answer is no health of gRPC: it has no message",
        ),
    ] {
        let answer = grpc(Answer::head(200, head)).await;
        assert_eq!(failed(answer), (false, says.to_owned()));
    }
}

// gRFC A17
#[tokio::test]
async fn who_has_no_health_service_is_well_and_who_speaks_no_grpc_is_not() {
    let without = Answer::head(200, &[GRPC, ("grpc-status", "12")]);
    grpc(without).await.unwrap();
    let mut late = Answer::head(200, &[GRPC]);
    late.trailers = Some("12");
    grpc(late).await.unwrap();
    for answer in [
        Answer::head(404, &[]),
        Answer::head(200, &[("grpc-status", "12")]),
        Answer::head(503, &[GRPC, ("grpc-status", "12")]),
    ] {
        let (definite, why) = failed(grpc(answer).await);
        assert!(!definite && why.ends_with("it speaks HTTP alone"), "{why}");
    }
    let (definite, why) = failed(GrpcProbe::new().check(&nobody().await).await);
    assert!(!definite && why.starts_with("no connection: "), "{why}");
    let http1 = answer("HTTP/1.1 400 What\r\n\r\n").await;
    let (definite, why) = failed(GrpcProbe::new().check(&http1).await);
    assert!(
        !definite && why.starts_with("the connection broke: "),
        "{why}"
    );
}

#[tokio::test]
async fn an_answer_without_status_or_without_end_is_a_failure() {
    let mut cut = Answer::serving(b"\x08\x01");
    cut.trailers = None;
    let (definite, why) = failed(grpc(cut).await);
    assert!(!definite && why.ends_with("without a status"), "{why}");
    let mut long = Answer::serving(b"\x08\x01");
    long.body = Some(vec![0; 100_000].into());
    let (definite, why) = failed(grpc(long).await);
    assert!(!definite && why.ends_with("it is too long"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn who_accepts_and_says_nothing_is_waited_for_as_long_as_the_caller_likes() {
    let endpoint = serve(async |_stream| pending().await).await;
    let second = Duration::from_secs(1);
    let http = tokio::time::timeout(second, healthz().check(&endpoint));
    assert!(http.await.is_err());
    let grpc = tokio::time::timeout(second, GrpcProbe::new().check(&endpoint));
    assert!(grpc.await.is_err());
}
