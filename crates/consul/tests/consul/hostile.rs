//! Answers that no agent should give, from a server of our own.
//!
//! Rows 1 to 4, 10, 21 and 36 of reference/performance.md (f). Whatever comes, what was known is not taken away, memory
//! is bounded, and the error says what is wrong.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_mesh_consul::{Consul, ErrorKind};
use tower_mesh_core::{Clock, KeyValue, Register, Resolve};

use crate::scene::{Seen, chain, instance, orders};

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// Answers with these headers, beside the length, and this body.
    Answer(&'static str, String),
    /// Answers with this body, does not say that it closes the connection, and does.
    AnswerAndGo(String),
    /// Answers that it fails.
    Fail(&'static str),
    /// Sends this many zeroes, and does not say beforehand how many.
    Huge(usize),
    /// Sends a head, and then nothing.
    Trickle,
    /// Reads the request and closes.
    Close,
    /// Reads the request and does nothing.
    Hang,
}

/// Gives one reply after the other, then the last one again and again.
#[derive(Clone)]
struct Fake {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl Fake {
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap().to_string(),
            requests: Arc::default(),
            sent: Arc::default(),
        };
        let this = fake.clone();
        tokio::spawn(async move {
            let turn = Arc::new(AtomicUsize::new(0));
            let replies = Arc::new(replies);
            while let Ok((stream, _)) = listener.accept().await {
                let (this, turn, replies) = (this.clone(), turn.clone(), replies.clone());
                tokio::spawn(async move {
                    // One request a connection.
                    let at = || turn.fetch_add(1, Ordering::Relaxed).min(replies.len() - 1);
                    let _ = this.serve(stream, || replies[at()].clone()).await;
                });
            }
        });
        fake
    }

    async fn serve(
        &self,
        mut stream: TcpStream,
        reply: impl FnOnce() -> Reply,
    ) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        self.requests.lock().unwrap().push(text);
        match reply() {
            Reply::Answer(headers, body) => {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body.as_bytes()).await
            }
            Reply::AnswerAndGo(body) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body.as_bytes()).await
            }
            Reply::Fail(status) => {
                let head = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 4\r\n\r\noops"
                );
                stream.write_all(head.as_bytes()).await
            }
            Reply::Huge(length) => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await?;
                let chunk = [b"10000\r\n", &vec![b'0'; 0x10000][..], b"\r\n"].concat();
                for _ in 0..length / 0x10000 {
                    stream.write_all(&chunk).await?;
                    self.sent.fetch_add(0x10000, Ordering::Relaxed);
                }
                Ok(())
            }
            Reply::Trickle => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[")
                    .await?;
                std::future::pending().await
            }
            Reply::Close => Ok(()),
            Reply::Hang => std::future::pending().await,
        }
    }

    fn consul(&self) -> Consul {
        Consul::new(&self.address)
            .unwrap()
            .wait(Duration::from_secs(2))
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn line(port: u16) -> String {
    format!(
        r#"{{"Node":{{"Address":"10.0.0.1"}},"Service":{{"ID":"{port}","Port":{port}}},"Checks":[]}}"#
    )
}

fn answer(headers: &'static str, ports: &[u16]) -> Reply {
    let lines: Vec<_> = ports.iter().copied().map(line).collect();
    Reply::Answer(headers, format!("[{}]", lines.join(",")))
}

/// What each of these brings is an error, and the next good answer is heard.
#[tokio::test]
async fn an_answer_that_is_none_is_an_error_and_the_next_one_is_asked_for() {
    let cut = line(1)[..20].to_owned();
    let cases = [
        (Reply::Answer("", cut), "not Consul's JSON"),
        (Reply::Answer("", "{}".into()), "not Consul's JSON"),
        (Reply::Answer("", "[null]".into()), "not Consul's JSON"),
        (
            Reply::Answer("", "[[[[".repeat(50_000)),
            "not Consul's JSON",
        ),
        (Reply::Fail("500 No"), "the agent failed (500): oops"),
        (Reply::Fail("429 Slow"), "less often (429)"),
        (Reply::Fail("301 Moved"), "the agent refused (301)"),
        (Reply::Close, "the connection"),
    ];
    for (reply, why) in cases {
        let fake = Fake::start(vec![answer("", &[1]), reply, answer("", &[2])]).await;
        let mut seen = Seen::start(&fake.consul(), &orders());
        assert_eq!(seen.ports().await, [1]);
        let error = seen.next().await.expect_err("an error");
        assert!(error.contains(why), "{error}");
        assert!(error.contains("orders") && error.len() < 600, "{error}");
        assert_eq!(seen.ports().await, [2]);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_cut_off_while_it_comes() {
    let fake = Fake::start(vec![Reply::Huge(100 << 20)]).await;
    let consul = fake.consul().max_answer(1 << 20);
    let error = Seen::start(&consul, &orders()).error().await;
    assert!(error.contains("larger than the 1048576 bytes"), "{error}");
    let sent = fake.sent.load(Ordering::Relaxed);
    assert!(
        sent < 32 << 20,
        "{sent} bytes were taken of an answer of 100 MiB"
    );
}

#[tokio::test]
async fn an_answer_with_too_many_endpoints_is_refused() {
    let ports: Vec<_> = (1..=1_001).collect();
    let fake = Fake::start(vec![answer("", &ports)]).await;
    let error = Seen::start(&fake.consul().max_endpoints(1_000), &orders())
        .error()
        .await;
    assert!(
        error.contains("1001 endpoints, more than the 1000"),
        "{error}"
    );
}

/// The clock is the test's own, and stands still: no time limit helps.
#[tokio::test]
async fn an_agent_that_closes_is_heard_at_once_and_not_when_the_time_is_up() {
    let fake = Fake::start(vec![Reply::Close]).await;
    let (clock, _hands) = Clock::manual();
    let consul = fake.consul().clock(clock);
    let error = Seen::start(&consul, &orders()).error().await;
    assert!(error.contains("the connection"), "{error}");
}

/// The same for one that is to be used again.
#[tokio::test]
async fn a_connection_that_was_closed_while_nobody_looked_is_not_waited_on() {
    let kept = |port| Reply::AnswerAndGo(format!("[{}]", line(port)));
    let fake = Fake::start(vec![kept(1), kept(2), kept(3), Reply::Hang]).await;
    let (clock, _hands) = Clock::manual();
    let mut seen = Seen::start(&fake.consul().clock(clock), &orders());
    for port in 1..=3 {
        assert_eq!(seen.ports().await, [port]);
    }
}

#[tokio::test]
async fn an_agent_that_hangs_or_trickles_is_given_up_when_its_time_is_over() {
    for (reply, limit, why) in [
        (Reply::Hang, 10, "not answered within 10s"),
        (Reply::Trickle, 30, "not complete within 30s"),
    ] {
        let fake = Fake::start(vec![reply]).await;
        let (clock, hands) = Clock::manual();
        let mut seen = Seen::start(&fake.consul().clock(clock), &orders());
        let error = seen.error();
        let passing = async {
            // Until it waits for the rest, and nothing else is to come.
            while fake.asked() == 0 || hands.timers() == 0 {
                tokio::task::yield_now().await;
            }
            for _ in 0..limit {
                hands.advance(Duration::from_secs(1));
                // The runtime looks at its sockets each 61 turns.
                for _ in 0..200 {
                    tokio::task::yield_now().await;
                }
            }
            hands.advance(Duration::from_secs(1));
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            error = error => error,
            () = passing => unreachable!("it never ends"),
        };
        assert!(error.contains(why), "{error}");
    }
}

fn indexes(fake: &Fake) -> Vec<Option<String>> {
    let requests = fake.requests.lock().unwrap();
    let index = |text: &String| {
        let (_, rest) = text.split_once("index=")?;
        Some(rest.split(['&', ' ']).next()?.to_owned())
    };
    requests.iter().map(index).collect()
}

#[tokio::test]
async fn an_index_that_goes_back_is_asked_from_the_beginning_and_none_is_no_reason_to_spin() {
    let fake = Fake::start(vec![
        answer("x-consul-index: 9\r\n", &[1]),
        answer("x-consul-index: 3\r\n", &[2]),
        answer("x-consul-index: 3\r\n", &[3]),
        answer("x-consul-index: 0\r\n", &[4]),
        answer("x-consul-index: junk\r\n", &[5]),
        answer("", &[6]),
        Reply::Hang,
    ])
    .await;
    let mut seen = Seen::start(&fake.consul(), &orders());
    for port in 1..=6 {
        assert_eq!(seen.ports().await, [port]);
    }
    let waits = tokio::time::timeout(Duration::from_millis(50), seen.next());
    assert!(waits.await.is_err());
    let text = |index: &str| Some(index.to_owned());
    let asked = [None, text("9"), None, text("3"), None, text("1"), text("1")];
    assert_eq!(indexes(&fake), asked);
}

#[tokio::test]
async fn those_who_follow_more_than_an_agent_takes_ask_in_turns() {
    let index = "x-consul-index: 9\r\n";
    let fake = Fake::start(vec![
        answer(index, &[1]),
        answer(index, &[2]),
        answer(index, &[3]),
        Reply::Hang,
    ])
    .await;
    let consul = fake.consul().wait(Duration::from_secs(300));
    let consul = consul.max_held(NonZeroUsize::new(2).unwrap());
    let follow = |service| Seen::start(&consul, &crate::scene::name(service));
    let mut all = [follow("a"), follow("b"), follow("c")];
    for seen in &mut all {
        seen.ports().await;
    }
    // All of them ask again; two are held, and the third has to wait for a place.
    let [a, b, c] = &mut all;
    let asking = async { tokio::join!(a.next(), b.next(), c.next()) };
    let never = tokio::time::timeout(Duration::from_millis(200), asking);
    assert!(never.await.is_err());
    assert_eq!(fake.asked(), 5);
    let requests = fake.requests.lock().unwrap();
    assert!(
        requests[3..]
            .iter()
            .all(|text| text.contains("wait=5000ms")),
        "{requests:?}"
    );
}

/// Another agent, or the same one without its state, would hold the old index for the whole wait.
#[tokio::test]
async fn after_an_error_it_is_asked_from_the_beginning() {
    let index = "x-consul-index: 9\r\n";
    let fake = Fake::start(vec![
        answer(index, &[1]),
        Reply::Fail("500 No"),
        answer(index, &[2]),
    ])
    .await;
    let mut seen = Seen::start(&fake.consul(), &orders());
    assert_eq!(seen.ports().await, [1]);
    assert_eq!(seen.ports().await, [2]);
    assert_eq!(indexes(&fake), [None, Some("9".to_owned()), None]);
}

/// Its clock stands still, so every pause is for ever: what it asks without one is all that it asks.
#[tokio::test]
async fn an_agent_that_never_waits_is_asked_a_few_times_and_then_left_alone() {
    let fake = Fake::start(vec![answer("x-consul-index: 9\r\n", &[1])]).await;
    let (clock, _hands) = Clock::manual();
    let mut seen = Seen::start(&fake.consul().clock(clock), &orders());
    assert_eq!(seen.ports().await, [1]);
    let never = tokio::time::timeout(Duration::from_millis(300), seen.next());
    assert!(never.await.is_err(), "nothing has changed");
    assert_eq!(
        fake.asked(),
        4,
        "the first, two for nothing, and the one after which it pauses"
    );
}

#[tokio::test]
async fn an_answer_that_is_too_old_is_asked_of_the_leader_and_used_if_there_is_none() {
    let old = |port| {
        answer(
            "x-consul-index: 9\r\nx-consul-lastcontact: 90000\r\n",
            &[port],
        )
    };
    let fake = Fake::start(vec![
        old(1),
        answer("x-consul-index: 9\r\n", &[2]),
        Reply::Hang,
    ])
    .await;
    assert_eq!(Seen::start(&fake.consul(), &orders()).ports().await, [2]);
    let stale: Vec<_> = {
        let requests = fake.requests.lock().unwrap();
        requests.iter().map(|text| text.contains("stale")).collect()
    };
    assert_eq!(stale[..2], [true, false]);

    let fake = Fake::start(vec![old(1), Reply::Fail("500 No"), old(3), Reply::Hang]).await;
    assert_eq!(Seen::start(&fake.consul(), &orders()).ports().await, [3]);
}

#[tokio::test]
async fn an_answer_that_leaves_out_what_may_not_be_read_is_an_error() {
    let fake = Fake::start(vec![answer(
        "x-consul-results-filtered-by-acls: true\r\n",
        &[],
    )])
    .await;
    let error = Seen::start(&fake.consul(), &orders()).error().await;
    assert!(
        error.contains("the token needs service:read on orders"),
        "{error}"
    );
}

const CANARY: &str = "5ec2e7-canary";

#[tokio::test]
async fn the_token_is_sent_with_each_request_and_printed_nowhere() {
    let fake = Fake::start(vec![Reply::Fail("403 Forbidden")]).await;
    let consul = fake.consul().token(CANARY).unwrap();
    let mut printed = format!("{consul:?} {consul:#?}");
    let updates = consul.resolve(&orders());
    printed += &Seen::start(&consul, &orders()).error().await;
    drop(updates);
    let refused = consul.register(instance(1)).await.unwrap_err();
    printed += &format!("{refused:?} {}", chain(&refused));
    let refused = consul
        .get(&tower_mesh_core::Key::new("a").unwrap())
        .await
        .unwrap_err();
    printed += &format!("{refused:?} {}", chain(&refused));
    assert!(!printed.contains(CANARY), "{printed}");
    let requests = fake.requests.lock().unwrap();
    let carries = |text: &String| text.contains(&format!("x-consul-token: {CANARY}\r\n"));
    assert!(requests.len() >= 3 && requests.iter().all(carries));
}

#[tokio::test]
async fn a_token_that_was_exchanged_in_its_file_is_read_when_the_old_one_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old").unwrap();
    let fake = Fake::start(vec![Reply::Fail("403 Forbidden"), answer("", &[1])]).await;
    let consul = fake.consul().token_file(file.path()).unwrap();
    std::fs::write(file.path(), "new").unwrap();
    assert_eq!(
        Seen::start(&consul, &orders())
            .next()
            .await
            .map(|all| all.len()),
        Ok(1)
    );
    let requests = fake.requests.lock().unwrap();
    assert!(
        requests[0].contains("x-consul-token: old") && requests[1].contains("x-consul-token: new")
    );
}

#[tokio::test]
async fn the_kind_of_an_error_tells_what_to_do_about_it() {
    let cases = [
        (Reply::Fail("403 Forbidden"), ErrorKind::Denied),
        (Reply::Fail("500 No"), ErrorKind::Unavailable),
        (Reply::Fail("400 Bad"), ErrorKind::Refused),
        (Reply::Answer("", "no".into()), ErrorKind::Malformed),
    ];
    for (reply, kind) in cases {
        let fake = Fake::start(vec![reply]).await;
        let key = tower_mesh_core::Key::new("a").unwrap();
        let error = fake.consul().get(&key).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        let found = source
            .downcast_ref::<tower_mesh_consul::ConsulError>()
            .unwrap()
            .kind();
        assert_eq!(found, kind);
    }
}
