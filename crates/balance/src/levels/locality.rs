//! How far away endpoints are.

/// How many parts of the `own` path, such as `eu-west/1a`, are not those of `zone`: none in the same zone, and all of them
/// where nothing is in common or the zone is not known.
pub(super) fn distance(own: &str, zone: Option<&str>) -> u8 {
    let common = zone.map_or(0, |zone| {
        let pairs = parts(own).zip(parts(zone));
        pairs.take_while(|(own, other)| own == other).count()
    });
    u8::try_from(parts(own).count() - common).unwrap_or(u8::MAX)
}

/// From the largest to the smallest.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_same_zone_is_nearest_then_the_same_region_then_all_else() {
        for (zone, far) in [
            (Some("eu/1a"), 0),
            (Some("eu/1a/rack-7"), 0),
            (Some("eu/1b"), 1),
            (Some("eu"), 1),
            (Some("us/1a"), 2),
            (Some("eu-2/1a"), 2),
            (Some(""), 2),
            (None, 2),
        ] {
            assert_eq!(distance("eu/1a", zone), far, "{zone:?}");
        }
        let without_region = |zone| distance("1a", Some(zone));
        assert_eq!(["1a", "1b"].map(without_region), [0, 1]);
        assert_eq!(distance(&"x/".repeat(400), None), u8::MAX);
    }
}
