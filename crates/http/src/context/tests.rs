use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use proptest::prelude::*;

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn trace(fields: &[(&'static str, &str)]) -> Option<TraceContext> {
    TraceContext::of(&headers(fields))
}

/// What a request says that is sent in this context.
fn written(context: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    context.write(&mut headers);
    headers
}

#[test]
fn a_trace_is_read_and_passed_on_as_it_came() {
    let state = "rojo=00f067aa0ba902b7, t61rcwkgmze@vendor=a b";
    let came = headers(&[("traceparent", PARENT), ("tracestate", state)]);
    let context = Context::of(&came);
    let trace = context.trace().unwrap();
    assert_eq!(
        trace.trace_id().get(),
        0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
    );
    assert_eq!(trace.parent_id().get(), 0x00f0_67aa_0ba9_02b7);
    assert!(trace.is_sampled());
    assert_eq!(written(&context), came);
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known_and_passed_on_as_this_one() {
    for came in [
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd",
    ] {
        assert_eq!(
            trace(&[("traceparent", came)]).unwrap().to_string(),
            PARENT,
            "{came}"
        );
    }
}

// row 33
#[test]
fn a_trace_that_is_none_is_left_out() {
    let longer = format!("01{}-{}", &PARENT[2..], "0".repeat(1_000_000));
    for hostile in [
        "",
        "00",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        &PARENT[..54],
        &format!("{PARENT}-"),
        &format!("{PARENT}0"),
        &format!("01{}0", &PARENT[2..]),
        &longer,
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0 ",
    ] {
        assert_eq!(trace(&[("traceparent", hostile)]), None, "{hostile:.80}");
    }
    let twice = [("traceparent", PARENT), ("traceparent", PARENT)];
    assert_eq!(trace(&twice), None);
    assert_eq!(trace(&[("tracestate", "a=b")]), None);
}

// row 33
#[test]
fn a_state_that_is_none_is_left_out_and_the_trace_stays() {
    let members = |count: usize| vec!["a=b"; count].join(",");
    let long = |bytes: usize| format!("a={},b={}", "x".repeat(200), "x".repeat(bytes - 205));
    let state = |state: &str| {
        let trace = trace(&[("traceparent", PARENT), ("tracestate", state)]).unwrap();
        assert_eq!(trace.to_string(), PARENT);
        written(&Context::new().with_trace(trace))
            .get("tracestate")
            .cloned()
    };
    for good in ["a=b", "a=b, ,c=d", &members(32), &long(460)] {
        assert_eq!(state(good).unwrap(), good);
    }
    for hostile in [
        "",
        " , ,",
        "a",
        "=b",
        "a=",
        "A=b",
        "a=b=c",
        "a=b,\u{e9}=c",
        "a=b\tc",
        "-a=b",
        &members(33),
        &format!("a=b,{}", members(200)),
        &format!("a={}", "x".repeat(257)),
        &format!("{}=b", "a".repeat(257)),
        &"x".repeat(1_000_000),
    ] {
        assert_eq!(state(hostile), None, "{hostile:.80}");
    }
}

#[test]
fn a_state_in_several_headers_is_one_and_bounded_as_one() {
    let several = |values: &[&str]| {
        let mut fields = vec![("traceparent", PARENT)];
        fields.extend(values.iter().map(|value| ("tracestate", *value)));
        let context = Context::of(&headers(&fields));
        written(&context).get("tracestate").cloned()
    };
    assert_eq!(several(&["a=b", "c=d", "e=f"]).unwrap(), "a=b,c=d,e=f");
    let long = format!("a={}", "x".repeat(254));
    assert_eq!(several(&[&long, &long]), None, "513 bytes");
    assert!(several(&[&long, &long[..255]]).is_some());
}

#[test]
fn who_names_a_trace_or_a_priority_in_a_request_means_it() {
    let context = Context::of(&headers(&[
        ("traceparent", PARENT),
        ("tracestate", "a=b"),
        ("x-mesh-priority", "critical"),
    ]));
    assert_eq!(context.priority(), Some(Priority::Critical));
    let own = "00-00000000000000000000000000000001-0000000000000002-00";
    let said = headers(&[("traceparent", own), ("x-mesh-priority", "sheddable")]);
    let mut request = said.clone();
    context.write(&mut request);
    assert_eq!(request, said, "nor is a state added to another's trace");
}

// row 33
#[test]
fn a_priority_is_one_of_three_words_and_there_once() {
    let read = |values: &[&str]| {
        let fields: Vec<_> = values.iter().map(|v| ("x-mesh-priority", *v)).collect();
        priority_of(&headers(&fields))
    };
    assert_eq!(read(&["sheddable"]), Some(Priority::Sheddable));
    assert_eq!(read(&["default"]), Some(Priority::Default));
    for hostile in [
        &[][..],
        &[""],
        &["CRITICAL"],
        &["critical,critical"],
        &["critical", "critical"],
        &["critical\t"],
        &["\u{e9}"],
    ] {
        assert_eq!(read(hostile), None, "{hostile:?}");
    }
}

// row 33
#[test]
fn an_attempt_is_read_to_nine_digits_and_bounded_and_else_the_first() {
    let grpc = ("content-type", "application/grpc");
    for (http, before, attempt) in [
        ("1", "0", 1),
        ("2", "1", 2),
        ("007", "6", 7),
        ("100", "99", 100),
        ("999", "999", 100),
        ("999999999", "999999999", 100),
        ("1000000000", "1000000000", 1),
        ("0", "", 1),
        ("-2", "-1", 1),
        ("+2", "+1", 1),
        ("2.0", "1.0", 1),
        ("", "x", 1),
    ] {
        assert_eq!(attempt_of(&headers(&[("x-mesh-attempt", http)])), attempt);
        let grpc = headers(&[grpc, ("grpc-previous-rpc-attempts", before)]);
        assert_eq!(attempt_of(&grpc), attempt, "{before}");
    }
    let twice = headers(&[("x-mesh-attempt", "2"), ("x-mesh-attempt", "2")]);
    assert_eq!(attempt_of(&twice), 1);
}

#[test]
fn an_attempt_is_written_as_it_is_read_and_a_first_one_not_at_all() {
    for grpc in [false, true] {
        let mut headers = HeaderMap::new();
        if grpc {
            let grpc = HeaderValue::from_static("application/grpc");
            headers.insert(CONTENT_TYPE, grpc);
        }
        let without = headers.clone();
        for attempt in [2, 3, 10, 100] {
            set_attempt(&mut headers, attempt);
            assert_eq!(attempt_of(&headers), attempt);
        }
        set_attempt(&mut headers, u32::MAX);
        assert_eq!(attempt_of(&headers), MOST_ATTEMPTS);
        set_attempt(&mut headers, 1);
        assert_eq!(headers, without);
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_without_a_panic_and_passed_on_as_what_everybody_can_read(
        parent in prop_oneof![
            Just(PARENT.to_owned()),
            "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,10})?",
            ".{0,80}",
        ],
        state in ".{0,600}",
        priority in ".{0,12}",
    ) {
        let mut came = HeaderMap::new();
        for (name, text) in [("traceparent", parent), ("tracestate", state), ("x-mesh-priority", priority)] {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                came.append(HeaderName::from_static(name), value);
            }
        }
        let context = Context::of(&came);
        let sent = written(&context);
        prop_assert_eq!(Context::of(&sent), context);
        prop_assert!(sent.values().map(HeaderValue::len).sum::<usize>() <= 55 + 512 + 9);
    }
}
