//! A server that says what it was told to say, over UDP and TCP at one port.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{oneshot, watch},
};
use tower_mesh_dns::Dns;

/// What it says to a question.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Answers, and additional records.
    Records(Vec<Record>, Vec<Record>),
    /// There is no such name; or no such record, as long as the name has others.
    Nothing(ResponseCode, Option<Box<Record>>),
    Fail(ResponseCode),
    Silence,
    /// Over TCP the end of the connection.
    Close,
    /// First an answer with another id and other records.
    Forged(Vec<Record>, Box<Reply>),
    /// Over UDP none of it, and that it is truncated.
    Truncated(Box<Reply>),
    /// Over UDP and over TCP none of it, and that it is truncated.
    AlwaysTruncated,
    /// These bytes after the header.
    Garbage(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

/// One that ends with its test. It has a thread of its own, so that a runtime's tasks are those of who asks.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(crate) struct State {
    zone: Mutex<HashMap<(Name, RecordType), Reply>>,
    asked: watch::Sender<Vec<(Over, String, RecordType)>>,
    /// Connections that are open.
    pub(crate) open: AtomicUsize,
    pub(crate) most_open: AtomicUsize,
}

impl Server {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let (tell, address) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let serving = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let (udp, tcp) = sockets().await;
                tell.send(tcp.local_addr().unwrap()).unwrap();
                tokio::spawn(over_tcp(tcp, Arc::clone(&serving)));
                tokio::spawn(over_udp(udp, serving));
                let _ = ended.await;
            });
        });
        Self {
            address: address.recv().unwrap(),
            state,
            end: Some(end),
            thread: Some(thread),
        }
    }

    pub(crate) fn dns(&self) -> Dns {
        Dns::new([self.address]).unwrap()
    }

    pub(crate) fn says(&self, name: &str, kind: RecordType, reply: Reply) {
        let key = (fqdn(name), kind);
        self.state.zone.lock().unwrap().insert(key, reply);
    }

    /// Forgets the name.
    pub(crate) fn forgets(&self, name: &str) {
        let mut zone = self.state.zone.lock().unwrap();
        zone.retain(|(known, _), _| *known != fqdn(name));
    }

    /// These addresses, which hold for `ttl` seconds.
    pub(crate) fn has(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().partition(|ip| ip.is_ipv4());
        for (kind, all) in [(RecordType::A, v4), (RecordType::AAAA, v6)] {
            let records = all.iter().map(|ip| address(name, ttl, *ip));
            self.says(name, kind, Reply::Records(records.collect(), Vec::new()));
        }
    }

    /// What it was asked, in order.
    pub(crate) fn asked(&self) -> Vec<(Over, String, RecordType)> {
        self.state.asked.borrow().clone()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn until_asked(&self, times: usize) {
        let mut asked = self.state.asked.subscribe();
        asked.wait_for(|asked| asked.len() >= times).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

pub(crate) fn fqdn(name: &str) -> Name {
    let mut name = Name::from_str(name).unwrap();
    name.set_fqdn(true);
    name
}

pub(crate) fn v4(last: u16) -> IpAddr {
    let [high, low] = last.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}

pub(crate) fn address(name: &str, ttl: u32, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(fqdn(name), ttl, data)
}

pub(crate) fn srv(
    name: &str,
    ttl: u32,
    (priority, weight, port): (u16, u16, u16),
    target: &str,
) -> Record {
    let data = SRV::new(priority, weight, port, fqdn(target));
    Record::from_rdata(fqdn(name), ttl, RData::SRV(data))
}

pub(crate) fn alias(name: &str, ttl: u32, of: &str) -> Record {
    Record::from_rdata(fqdn(name), ttl, RData::CNAME(CNAME(fqdn(of))))
}

/// How long "nothing" holds: the smaller of the two.
pub(crate) fn soa(ttl: u32, minimum: u32) -> Box<Record> {
    let data = SOA::new(
        fqdn("ns.example"),
        fqdn("root.example"),
        1,
        1,
        1,
        1,
        minimum,
    );
    Box::new(Record::from_rdata(fqdn("example"), ttl, RData::SOA(data)))
}

/// Both at one port, which may be taken for one of them.
async fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

async fn over_udp(socket: UdpSocket, state: Arc<State>) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        for answer in state.answers(Over::Udp, &buffer[..length]) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn over_tcp(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
            state.most_open.fetch_max(open, Ordering::SeqCst);
            let _ = serve(stream, &state).await;
            state.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        if state.closes_after(&question) {
            return Ok(());
        }
        for answer in state.answers(Over::Tcp, &question) {
            stream.write_u16(answer.len().try_into().unwrap()).await?;
            stream.write_all(&answer).await?;
        }
    }
}

impl State {
    fn closes_after(&self, question: &[u8]) -> bool {
        let question = Message::from_vec(question).unwrap();
        let query = &question.queries[0];
        let zone = self.zone.lock().unwrap();
        let reply = zone.get(&(query.name().clone(), query.query_type()));
        matches!(reply, Some(Reply::Close))
    }

    fn answers(&self, over: Over, question: &[u8]) -> Vec<Vec<u8>> {
        let question = Message::from_vec(question).unwrap();
        let query = &question.queries[0];
        let zone = self.zone.lock().unwrap();
        let known = zone.get(&(query.name().clone(), query.query_type()));
        let reply = known.cloned().unwrap_or_else(|| {
            // Other types of it make it a name.
            let is_name = zone.keys().any(|(name, _)| name == query.name());
            let codes = [ResponseCode::NXDomain, ResponseCode::NoError];
            Reply::Nothing(codes[usize::from(is_name)], None)
        });
        drop(zone);
        let answers = reply.to(over, &question);
        let (name, kind) = (query.name().to_string(), query.query_type());
        self.asked
            .send_modify(|asked| asked.push((over, name, kind)));
        answers
    }
}

impl Reply {
    fn to(&self, over: Over, question: &Message) -> Vec<Vec<u8>> {
        let mut message = Message::new(question.id, MessageType::Response, question.op_code);
        message.add_queries(question.queries.clone());
        match self {
            Self::Records(answers, additionals) => {
                message.add_answers(answers.clone());
                message.add_additionals(additionals.clone());
            }
            Self::Nothing(code, soa) => {
                message.metadata.response_code = *code;
                message.add_authorities(soa.as_deref().cloned());
            }
            Self::Fail(code) => message.metadata.response_code = *code,
            Self::Silence | Self::Close => return Vec::new(),
            Self::Forged(records, real) => {
                message.metadata.id ^= 1;
                message.add_answers(records.clone());
                let forged = message.to_vec().unwrap();
                return [vec![forged], real.to(over, question)].concat();
            }
            Self::Truncated(whole) if over == Over::Tcp => return whole.to(over, question),
            Self::Truncated(_) | Self::AlwaysTruncated => message.metadata.truncation = true,
            Self::Garbage(bytes) => {
                message.metadata.response_code = ResponseCode::NoError;
                let mut answer = message.to_vec().unwrap();
                // As many answers as can be said.
                answer[6..8].fill(0xff);
                answer.extend(bytes);
                return vec![answer];
            }
        }
        vec![message.to_vec().unwrap()]
    }
}
