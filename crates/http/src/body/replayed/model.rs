//! Any stream, any limit, any order in which attempts are made, read and given up, beside a plain model: it knows the
//! whole body and how much of it has been read, and so what each attempt has to bring.

use std::{
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

use http::HeaderMap;
use http_body::Body as _;
use proptest::prelude::*;

use crate::{
    body::{Body, KeptBody},
    script::{Script, Step, grpc_status},
};

const TEXT: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// `grpc-status: 0`
const TRAILERS: usize = 12;

/// A frame of so many bytes, or none.
#[derive(Clone, Debug)]
enum Item {
    Data(usize),
    Pending,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Plain,
    Trailers,
    Error,
}

#[derive(Clone, Debug)]
enum Do {
    Again,
    /// Polls one of the attempts that exist.
    Poll(usize),
    DropAttempt(usize),
    DropKept,
}

/// What a poll brings.
#[derive(Debug, PartialEq)]
enum Brings {
    Data(String),
    Trailers(HeaderMap),
    End,
    /// Of the stream, or because of it.
    Error,
    Overtaken,
    Pending,
}

struct Model {
    items: std::vec::IntoIter<Item>,
    end: End,
    /// How much of the data has been read, by whomever.
    read: usize,
    ended: bool,
    failed: bool,
    limit: usize,
    /// Whether the beginning is still there.
    whole: bool,
    kept: bool,
    owner: Option<usize>,
    claim: Option<usize>,
    /// Of the owner: data and trailers that it has had.
    had: usize,
    trailers_had: bool,
    attempts: usize,
}

impl Model {
    fn can_again(&self) -> bool {
        self.kept && self.whole && !self.failed
    }

    fn again(&mut self) -> usize {
        self.attempts += 1;
        self.claim = Some(self.attempts);
        self.attempts
    }

    /// What attempt `id` has to bring; data that is played may come in other pieces, `got` bytes in this one.
    fn poll(&mut self, id: usize, got: usize) -> Brings {
        if self.claim == Some(id) {
            (self.claim, self.owner) = (None, Some(id));
            (self.had, self.trailers_had) = (0, false);
        }
        if self.owner != Some(id) {
            return Brings::Overtaken;
        }
        if self.claim.is_some() {
            return Brings::Pending;
        }
        if self.had < self.read {
            let from = self.had;
            self.had += got.clamp(1, self.read - from);
            return Brings::Data(TEXT[from..self.had].to_owned());
        }
        if self.failed {
            return Brings::Error;
        }
        if self.ended {
            return self.at_end();
        }
        match self.items.next() {
            Some(Item::Pending) => Brings::Pending,
            Some(Item::Data(len)) => {
                let from = self.read;
                self.read += len;
                self.had = self.read;
                self.whole &= self.read <= self.limit;
                Brings::Data(TEXT[from..self.read].to_owned())
            }
            None => {
                self.ended = true;
                self.failed = self.end == End::Error;
                let trailers = if self.end == End::Trailers {
                    TRAILERS
                } else {
                    0
                };
                self.whole &= self.read + trailers <= self.limit || trailers == 0;
                if self.failed {
                    Brings::Error
                } else {
                    self.at_end()
                }
            }
        }
    }

    fn at_end(&mut self) -> Brings {
        if self.end == End::Trailers && !self.trailers_had {
            self.trailers_had = true;
            Brings::Trailers(grpc_status("0"))
        } else {
            Brings::End
        }
    }

    fn drop_attempt(&mut self, id: usize) {
        if self.claim == Some(id) {
            self.claim = None;
        }
        if self.owner == Some(id) {
            self.owner = None;
        }
    }
}

fn script(items: &[Item], end: End) -> Script {
    let mut from = 0;
    let mut steps: Vec<_> = (items.iter())
        .map(|item| match *item {
            Item::Pending => Step::Pending,
            Item::Data(len) => {
                from += len;
                Step::Data(&TEXT[from - len..from])
            }
        })
        .collect();
    match end {
        End::Plain => {}
        End::Trailers => steps.push(Step::Trailers(grpc_status("0"))),
        // Whoever has the stream alone asks the stream itself again.
        End::Error => steps.extend(vec![Step::Error; 40]),
    }
    Script::new(steps)
}

fn poll(body: &mut Body) -> (Brings, usize) {
    let mut cx = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(body).poll_frame(&mut cx) {
        Poll::Pending => (Brings::Pending, 0),
        Poll::Ready(None) => (Brings::End, 0),
        Poll::Ready(Some(Err(error))) if error.to_string().contains("later attempt") => {
            (Brings::Overtaken, 0)
        }
        Poll::Ready(Some(Err(_))) => (Brings::Error, 0),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => {
                let text = String::from_utf8(data.to_vec()).unwrap();
                let len = text.len();
                (Brings::Data(text), len)
            }
            Err(frame) => (Brings::Trailers(frame.into_trailers().unwrap()), 0),
        },
    }
}

/// The attempt that a number stands for.
fn pick(attempts: &BTreeMap<usize, Body>, number: usize) -> Option<usize> {
    let index = number.checked_rem(attempts.len())?;
    attempts.keys().nth(index).copied()
}

fn check(items: Vec<Item>, end: End, limit: usize, steps: Vec<Do>) -> Result<(), TestCaseError> {
    let total: usize = items
        .iter()
        .map(|item| if let Item::Data(len) = item { *len } else { 0 })
        .sum();
    let mut body = Body::new(script(&items, end));
    let mut kept: Option<KeptBody> = body.keep(limit);
    prop_assert!(kept.is_some());
    let mut model = Model {
        items: items.into_iter(),
        end,
        read: 0,
        ended: false,
        failed: false,
        limit,
        whole: true,
        kept: true,
        owner: Some(0),
        claim: None,
        had: 0,
        trailers_had: false,
        attempts: 0,
    };
    let mut attempts = BTreeMap::from([(0, body)]);
    for step in steps {
        match step {
            Do::Again => {
                let body = kept.as_ref().and_then(KeptBody::again);
                prop_assert_eq!(body.is_some(), model.can_again());
                if let Some(body) = body {
                    attempts.insert(model.again(), body);
                }
            }
            Do::Poll(number) => {
                let Some(id) = pick(&attempts, number) else {
                    continue;
                };
                let body = attempts.get_mut(&id).unwrap();
                let (brings, got) = poll(body);
                prop_assert_eq!(brings, model.poll(id, got));
            }
            Do::DropAttempt(number) => {
                if let Some(id) = pick(&attempts, number) {
                    attempts.remove(&id);
                    model.drop_attempt(id);
                }
            }
            Do::DropKept => {
                kept = None;
                model.kept = false;
            }
        }
        for (id, body) in &attempts {
            let hint = body.size_hint();
            let had = if model.owner == Some(*id) {
                model.had
            } else {
                0
            };
            prop_assert!(hint.lower() as usize <= total - had);
            prop_assert!(
                hint.upper()
                    .is_none_or(|upper| upper as usize >= total - had)
            );
        }
    }
    // Whatever has happened: another attempt brings all of it, or there is none.
    if let Some(mut last) = kept.as_ref().and_then(KeptBody::again) {
        let mut all = String::new();
        loop {
            match poll(&mut last).0 {
                Brings::Data(data) => all += &data,
                Brings::Pending => {}
                ended => {
                    prop_assert_eq!(&all, &TEXT[..total]);
                    let expected = match end {
                        End::Plain => Brings::End,
                        End::Trailers => Brings::Trailers(grpc_status("0")),
                        End::Error => Brings::Error,
                    };
                    prop_assert_eq!(ended, expected);
                    break;
                }
            }
        }
    }
    Ok(())
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![4 => (0..9usize).prop_map(Item::Data), 1 => Just(Item::Pending)]
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        10 => (0..2usize).prop_map(|back| Do::Poll(usize::MAX - back)),
        10 => any::<usize>().prop_map(Do::Poll),
        4 => Just(Do::Again),
        3 => any::<usize>().prop_map(Do::DropAttempt),
        1 => Just(Do::DropKept),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_attempt_brings_the_whole_body_or_is_not_made(
        items in prop::collection::vec(item(), 0..9),
        end in prop_oneof![Just(End::Plain), Just(End::Trailers), Just(End::Error)],
        limit in 0..80usize,
        steps in prop::collection::vec(step(), 0..40),
    ) {
        check(items, end, limit, steps)?;
    }
}
