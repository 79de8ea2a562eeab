//! A question to one server, all of it within the future of who asks.
//!
//! hickory's own connections are driven by tasks that it spawns. A leaf spawns nothing, and here nobody is left who would
//! end such a task; so a connection lives as long as its exchange. Servers are asked every few seconds: it costs nothing
//! that would be noticed.

use std::{future::poll_fn, net::SocketAddr, task::Poll, time::Duration};

use futures_util::{FutureExt, StreamExt};
use hickory_resolver::{
    net::{
        DnsMultiplexer, NetError,
        runtime::TokioRuntimeProvider,
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsRequestSender, FirstAnswer},
    },
    proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode},
};

use crate::dns::Transport;

/// What passes through any network in one piece (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;

/// Asks a server; what is no answer is an error that begins with its address.
pub(crate) async fn ask(
    server: SocketAddr,
    query: &Query,
    transport: Transport,
    limit: Duration,
) -> Result<DnsResponse, String> {
    let mut over = transport;
    let mut answer = once(server, query, over, limit).await?;
    if over == Transport::Udp && answer.truncation {
        over = Transport::Tcp;
        answer = once(server, query, over, limit).await?;
    }
    if answer.truncation {
        return Err(format!(
            "{server} has answered over {over} with a truncated answer"
        ));
    }
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(format!("{server} cannot answer: {code}")),
    }
}

async fn once(
    server: SocketAddr,
    query: &Query,
    over: Transport,
    limit: Duration,
) -> Result<DnsResponse, String> {
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.edns_payload_len = UDP_PAYLOAD;
    options.recursion_desired = true;
    let request = DnsRequest::from_query(query.clone(), options);
    let answer = match over {
        Transport::Tcp => over_tcp(server, request, limit).await,
        Transport::Udp => over_udp(server, request, limit).await,
    };
    answer.map_err(|error| format!("{server} has not answered over {over}: {error}"))
}

/// Sends it again if no answer comes, from another port each time.
async fn over_udp(
    server: SocketAddr,
    request: DnsRequest,
    limit: Duration,
) -> Result<DnsResponse, NetError> {
    let builder = UdpClientStream::builder(server, TokioRuntimeProvider::default());
    let mut socket = builder.with_timeout(Some(limit)).build();
    socket.send_message(request).first_answer().await
}

async fn over_tcp(
    server: SocketAddr,
    request: DnsRequest,
    limit: Duration,
) -> Result<DnsResponse, NetError> {
    let runtime = TokioRuntimeProvider::default();
    let (connecting, sender) = TcpClientStream::new(server, None, Some(limit), runtime);
    let mut connection = DnsMultiplexer::new(connecting.await?, sender).with_timeout(limit);
    let mut answer = connection.send_message(request).first_answer();
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.poll_unpin(cx) {
            return Poll::Ready(answer);
        }
        match connection.poll_next_unpin(cx) {
            Poll::Pending => Poll::Pending,
            // It has come to its end, and said so to who waits for the answer.
            Poll::Ready(_) => answer.poll_unpin(cx),
        }
    })
    .await
}
