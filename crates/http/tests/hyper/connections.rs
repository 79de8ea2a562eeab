//! How many connections there are to an endpoint, and when they are made.

use std::{num::NonZeroUsize, time::Duration};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc};
use tower::ServiceExt;
use tower_mesh_core::{Class, Endpoint, Kind, NewService, Sent};

use crate::support::{class_of, endpoints, get, nobody, post, read_head, refusal};

#[derive(Debug, PartialEq)]
enum Seen {
    Connected,
    Asked,
    Closed,
}

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Answers on each connection until that is closed, and tells what it sees.
async fn server() -> (Endpoint, mpsc::UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tell.send(Seen::Connected).unwrap();
            tokio::spawn(async move {
                while read_head(&mut stream).await.is_ok() {
                    let _ = tell.send(Seen::Asked);
                    stream.write_all(NO_CONTENT).await.unwrap();
                }
                let _ = tell.send(Seen::Closed);
            });
        }
    });
    (endpoint, told)
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let (endpoint, mut seen) = server().await;
    let client = endpoints().new_service(&endpoint);
    for _ in 0..3 {
        let response = client.clone().oneshot(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(seen.recv().await, Some(Seen::Connected));
    for _ in 0..3 {
        assert_eq!(seen.recv().await, Some(Seen::Asked));
    }
}

#[tokio::test]
async fn nobody_connects_before_the_first_request_unless_warmed_up_and_then_it_is_the_first_ones() {
    let (endpoint, mut seen) = server().await;
    let cold = endpoints().new_service(&endpoint);
    tokio::task::yield_now().await;
    assert!(seen.try_recv().is_err());
    drop(cold);

    let warm = endpoints().warm_up().new_service(&endpoint);
    assert_eq!(seen.recv().await, Some(Seen::Connected));
    // Until it is set aside.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    warm.clone().oneshot(get()).await.unwrap();
    assert_eq!(seen.recv().await, Some(Seen::Asked), "no other connection");
    drop(warm);
    assert_eq!(seen.recv().await, Some(Seen::Closed));
}

#[tokio::test]
async fn a_connection_that_was_made_ahead_ends_with_its_client_or_when_nobody_wants_it() {
    let (endpoint, mut seen) = server().await;
    for idle in [Duration::from_secs(60), Duration::from_millis(10)] {
        let warm = endpoints().warm_up().idle_timeout(idle);
        let warm = warm.new_service(&endpoint);
        assert_eq!(seen.recv().await, Some(Seen::Connected));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        if idle > Duration::from_secs(1) {
            drop(warm);
        }
        assert_eq!(seen.recv().await, Some(Seen::Closed));
    }
}

#[tokio::test]
async fn one_that_was_made_ahead_and_has_been_closed_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let warm = endpoints().warm_up().new_service(&endpoint);
    drop(listener.accept().await.unwrap());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let (answer, ()) = tokio::join!(warm.oneshot(post()), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(NO_CONTENT).await.unwrap();
    });
    assert_eq!(answer.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn warming_up_somebody_who_is_away_does_nothing() {
    let away = nobody().await;
    let warm = endpoints().warm_up().new_service(&away);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let error = warm.oneshot(post()).await.unwrap_err();
    assert_eq!(refusal(&error).kind(), Kind::Connect);
}

#[tokio::test]
async fn a_request_beyond_the_most_connections_is_refused_unsent_and_nothing_against_the_endpoint()
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let client = endpoints()
        .max_connections(NonZeroUsize::MIN)
        .connect_timeout(Duration::from_millis(50))
        .new_service(&endpoint);
    let first = tokio::spawn(client.clone().oneshot(get()));
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await.unwrap();

    let error = client.clone().oneshot(post()).await.unwrap_err();
    assert_eq!(refusal(&error).kind(), Kind::Overloaded);
    assert_eq!(refusal(&error).sent(), Sent::Never);
    assert_eq!(class_of(&error), Class::Neutral);
    let message = error.to_string();
    assert!(message.contains("all 1 connections"), "{message}");

    // One that becomes free in time is waited for.
    let patient = client.clone();
    let (answered, ()) = tokio::join!(patient.oneshot(get()), async {
        stream.write_all(NO_CONTENT).await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(NO_CONTENT).await.unwrap();
    });
    assert_eq!(answered.unwrap().status(), StatusCode::NO_CONTENT);
    let first = first.await.unwrap().unwrap();
    first.into_body().collect().await.unwrap();

    // And one that is closed gives its place back.
    drop(stream);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while read_head(&mut stream).await.is_ok() {
                    stream.write_all(NO_CONTENT).await.unwrap();
                }
            });
        }
    });
    // A GET may be lost with the connection that it finds closing.
    for attempt in 0.. {
        match client.clone().oneshot(get()).await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 20, "{error}"),
        }
    }
}
