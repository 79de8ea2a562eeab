//! The cases: what is measured, by which binary of `tower-mesh-bench`, above what.

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    pub(crate) binary: &'static str,
    pub(crate) args: &'static [&'static str],
    /// The case whose cost is not this one's.
    pub(crate) above: Option<&'static str>,
    /// The table says that it is the difference of two cases.
    pub(crate) shown: Shown,
}

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shown {
    /// The case itself.
    Itself,
    /// The whole stack less this case, which lacks one layer: what that layer adds.
    WhatItLacks {
        layer: &'static str,
        of: &'static str,
    },
}

/// Where in the table a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Bare,
    Mesh,
    Server,
    Stack,
    Alone,
    Inside,
    InsideHttp,
    Peers,
}

impl Group {
    pub(crate) const ALL: [Self; 8] = [
        Self::Bare,
        Self::Mesh,
        Self::Server,
        Self::Stack,
        Self::Alone,
        Self::Inside,
        Self::InsideHttp,
        Self::Peers,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Bare => "The plain service",
            Self::Mesh => "`MeshService`, everything by default",
            Self::Server => "`server_layer()`, a request that is refused",
            Self::Stack => "Its layers by hand, 1,000 endpoints",
            Self::Alone => "Each layer alone, called with numbers",
            Self::Inside => "What each layer adds inside the mesh, called with numbers",
            Self::InsideHttp => "What each layer adds inside the mesh, over HTTP",
            Self::Peers => "Peers, called with numbers",
        }
    }
}

impl Case {
    const fn new(
        group: Group,
        name: &'static str,
        binary: &'static str,
        args: &'static [&'static str],
        above: Option<&'static str>,
    ) -> Self {
        Self {
            name,
            group,
            binary,
            args,
            above,
            shown: Shown::Itself,
        }
    }

    /// A layer by itself, over the plain service.
    const fn alone(name: &'static str, binary: &'static str) -> Self {
        Self::new(Group::Alone, name, binary, &[], Some("bare"))
    }

    /// A pick alone: between two calls of one endpoint of many no time passes, however slow an instrument is.
    const fn still(name: &'static str, args: &'static [&'static str]) -> Self {
        Self::new(Group::Alone, name, "balance_alone", args, Some("bare"))
    }

    /// The whole stack without one layer, called with numbers.
    const fn without(name: &'static str, layer: &'static str, binary: &'static str) -> Self {
        Self {
            shown: Shown::WhatItLacks {
                layer,
                of: "stack, numbers",
            },
            ..Self::new(Group::Inside, name, binary, &[], Some("bare"))
        }
    }

    /// The same over HTTP.
    const fn without_http(name: &'static str, layer: &'static str, binary: &'static str) -> Self {
        Self {
            shown: Shown::WhatItLacks {
                layer,
                of: "stack, http",
            },
            ..Self::new(Group::InsideHttp, name, binary, &[], Some("bare, http"))
        }
    }

    const fn peer(name: &'static str, binary: &'static str, args: &'static [&'static str]) -> Self {
        Self::new(Group::Peers, name, binary, args, Some("bare"))
    }

    const fn mesh(name: &'static str, args: &'static [&'static str], above: &'static str) -> Self {
        Self::new(Group::Mesh, name, "mesh", args, Some(above))
    }

    /// Whether its inner service is pending once: two threads are not compared then.
    pub(crate) fn is_pending(&self) -> bool {
        self.args.contains(&"--pending")
    }

    /// What it needs to be built with.
    pub(crate) fn is_peer(&self) -> bool {
        self.group == Group::Peers
    }
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Case] = &[
    Case::new(Group::Bare, "bare", "bare", &[], None),
    Case::new(
        Group::Bare,
        "bare, pending once",
        "bare",
        &["--pending"],
        None,
    ),
    Case::new(Group::Bare, "bare, http", "bare_http", &[], None),
    Case::new(
        Group::Bare,
        "bare, http, pending once",
        "bare_http",
        &["--pending"],
        None,
    ),
    Case::mesh("mesh, 10", &["--endpoints", "10"], "bare, http"),
    Case::mesh("mesh, 1,000", &["--endpoints", "1000"], "bare, http"),
    Case::mesh("mesh, 100,000", &["--endpoints", "100000"], "bare, http"),
    Case::mesh(
        "mesh, 10, pending once",
        &["--endpoints", "10", "--pending"],
        "bare, http, pending once",
    ),
    Case::mesh(
        "mesh, 1,000, pending once",
        &["--endpoints", "1000", "--pending"],
        "bare, http, pending once",
    ),
    Case::mesh(
        "mesh, 100,000, pending once",
        &["--endpoints", "100000", "--pending"],
        "bare, http, pending once",
    ),
    Case::new(
        Group::Mesh,
        "mesh, 1,000, with a recorder",
        "mesh_recorded",
        &[],
        Some("bare, http"),
    ),
    Case::new(Group::Bare, "bare, POST", "bare_post", &[], None),
    Case::new(
        Group::Mesh,
        "mesh, 1,000, POST",
        "mesh_post",
        &[],
        Some("bare, POST"),
    ),
    Case::new(
        Group::Mesh,
        "mesh, 1,000, POST, by authority",
        "mesh_authority",
        &[],
        Some("bare, POST"),
    ),
    // However many endpoints there are, it calls none.
    Case::new(
        Group::Server,
        "server, full: 503",
        "server_full",
        &["--warm", "100"],
        Some("bare, http"),
    ),
    Case::new(Group::Stack, "stack, numbers", "stack", &[], Some("bare")),
    Case::new(
        Group::Stack,
        "stack, numbers, pending once",
        "stack",
        &["--pending"],
        Some("bare, pending once"),
    ),
    Case::new(
        Group::Stack,
        "stack, http",
        "stack_http",
        &[],
        Some("bare, http"),
    ),
    Case::alone("deadline", "deadline"),
    Case::alone("discovery", "discovery"),
    Case::alone("bulkhead", "bulkhead"),
    Case::alone("retry", "retry"),
    Case::alone("hedge", "hedge"),
    Case::alone("breaker", "breaker"),
    Case::alone("balance, 1,000", "balance_alone"),
    Case::still(
        "balance, 10, clock at rest",
        &["--endpoints", "10", "--still"],
    ),
    Case::still(
        "balance, 1,000, clock at rest",
        &["--endpoints", "1000", "--still"],
    ),
    Case::still(
        "balance, 100,000, clock at rest",
        &["--endpoints", "100000", "--still"],
    ),
    Case::without("without deadline", "deadline", "numbers_without_deadline"),
    Case::without(
        "without discovery",
        "discovery",
        "numbers_without_discovery",
    ),
    Case::without("without bulkhead", "bulkhead", "numbers_without_bulkhead"),
    Case::without("without retry", "retry", "numbers_without_retry"),
    Case::without("without breaker", "breaker", "numbers_without_breaker"),
    Case::without_http(
        "without deadline, http",
        "deadline",
        "stack_without_deadline",
    ),
    Case::without_http(
        "without discovery, http",
        "discovery",
        "stack_without_discovery",
    ),
    Case::without_http(
        "without bulkhead, http",
        "bulkhead",
        "stack_without_bulkhead",
    ),
    Case::without_http("without retry, http", "retry", "stack_without_retry"),
    Case::without_http("without breaker, http", "breaker", "stack_without_breaker"),
    Case::peer("tower: timeout, retry, budget, limit", "peer_tower", &[]),
    Case::peer(
        "tower: buffer, balance, 10",
        "peer_tower_balance",
        &["--endpoints", "10"],
    ),
    Case::peer(
        "tower: buffer, balance, 1,000",
        "peer_tower_balance",
        &["--endpoints", "1000"],
    ),
    Case::peer("tower-resilience: breaker", "peer_resilience_breaker", &[]),
    Case::peer(
        "tower-resilience: breaker, retry, timeout, bulkhead",
        "peer_resilience",
        &[],
    ),
    Case::peer("seatbelt: timeout, retry, breaker", "peer_seatbelt", &[]),
    Case::peer("failsafe: breaker", "peer_failsafe", &[]),
    Case::peer("recloser: breaker", "peer_recloser", &[]),
];

/// The case of a name.
///
/// # Panics
///
/// If there is none: names are constants, and a test looks all of them up.
pub(crate) fn named(name: &str) -> &'static Case {
    let case = ALL.iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("no case is called {name}"))
}

/// Those whose name contains one of `filters`, and what they are measured above; all, without filters.
pub(crate) fn matching(filters: &[String]) -> Vec<&'static Case> {
    let matches = |case: &&Case| filters.iter().any(|filter| case.name.contains(&**filter));
    let wanted: Vec<_> = ALL
        .iter()
        .filter(|case| filters.is_empty() || matches(case))
        .collect();
    with_what_they_need(&wanted.iter().map(|case| case.name).collect::<Vec<_>>())
}

/// The cases of `names` and those that they are measured above, in the order of the table.
pub(crate) fn with_what_they_need(names: &[&'static str]) -> Vec<&'static Case> {
    let mut needed = names.to_vec();
    let mut next = 0;
    while let Some(&name) = needed.get(next) {
        let case = named(name);
        let of = match case.shown {
            Shown::Itself => None,
            Shown::WhatItLacks { of, .. } => Some(of),
        };
        needed.extend(case.above.into_iter().chain(of));
        next += 1;
    }
    ALL.iter()
        .filter(|case| needed.contains(&case.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_what_is_referred_to_exists() {
        for (i, case) in ALL.iter().enumerate() {
            assert!(!ALL[..i].iter().any(|other| other.name == case.name));
            case.above.map(named);
            if let Shown::WhatItLacks { of, .. } = case.shown {
                named(of);
            }
        }
    }

    #[test]
    fn a_filter_brings_what_it_is_measured_above() {
        let names = |filter: &str| -> Vec<_> {
            let cases = matching(&[filter.to_owned()]);
            cases.iter().map(|case| case.name).collect()
        };
        assert_eq!(
            names("seatbelt"),
            ["bare", "seatbelt: timeout, retry, breaker"]
        );
        assert_eq!(
            names("without retry, http"),
            ["bare, http", "stack, http", "without retry, http"]
        );
        assert_eq!(names("nothing of that name"), [""; 0]);
        assert_eq!(matching(&[]).len(), ALL.len());
    }
}
