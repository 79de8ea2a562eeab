use proptest::prelude::*;

use super::*;

fn rank(priority: u8, distance: u8) -> Rank {
    Rank { priority, distance }
}

fn levels(ranks: &[Rank], weights: &[u16], min_nearby: usize) -> Option<Levels> {
    let ranking = Ranking {
        zone: Some("eu/1a".into()),
        min_nearby,
    };
    let chance = Chance::default();
    Levels::new(None, &ranking, &[], ranks, weights, |_| true, &chance)
}

fn sizes(levels: &Levels) -> Vec<(Rank, usize)> {
    let all = levels.iter();
    all.map(|level| (level.rank, level.table.len())).collect()
}

#[test]
fn endpoints_of_one_rank_have_no_levels() {
    assert!(levels(&[], &[], 3).is_none());
    assert!(levels(&[rank(1, 2); 5], &[1; 5], 3).is_none());
}

#[test]
fn few_that_are_near_join_the_next_but_never_another_priority() {
    let ranks = [
        rank(0, 0),
        rank(0, 1),
        rank(0, 1),
        rank(0, 2),
        rank(1, 0),
        rank(1, 2),
    ];
    let of = |least| levels(&ranks, &[1; 6], least).map(|levels| sizes(&levels));
    let all = [(0, 0, 1), (0, 1, 2), (0, 2, 1), (1, 0, 1), (1, 2, 1)];
    let expected = all.map(|(priority, distance, size)| (rank(priority, distance), size));
    assert_eq!(of(1), Some(expected.to_vec()));
    let three = vec![(rank(0, 1), 3), (rank(0, 2), 1), (rank(1, 2), 2)];
    assert_eq!(of(3), Some(three));
    assert_eq!(of(9), Some(vec![(rank(0, 2), 4), (rank(1, 2), 2)]));
}

#[test]
fn who_weighs_nothing_makes_no_level() {
    let ranks = [rank(0, 0), rank(1, 0), rank(1, 0)];
    assert!(levels(&ranks, &[0, 1, 2], 0).is_none());
    let all = levels(&ranks, &[0; 3], 0).expect("as good as equal");
    assert_eq!(sizes(&all), [(rank(0, 0), 1), (rank(1, 0), 2)]);
}

proptest! {
    #[test]
    fn whoever_takes_calls_is_of_exactly_one_level_and_none_is_empty(
        those in prop::collection::vec((0u8..3, 0u8..3, 0u16..3), 1..40),
        least in 0usize..6,
    ) {
        let ranks: Vec<_> = those.iter().map(|(priority, distance, _)| rank(*priority, *distance)).collect();
        let weights: Vec<_> = those.iter().map(|(.., weight)| *weight).collect();
        let Some(levels) = levels(&ranks, &weights, least) else { return Ok(()) };
        let all = Table::new(&weights, |_| true);
        for (index, rank) in ranks.iter().enumerate() {
            let here = levels.iter().filter(|level| level.table.contains(index));
            let here: Vec<_> = here.map(|level| level.rank).collect();
            prop_assert_eq!(here.len(), usize::from(all.contains(index)));
            let is_near = |of: &Rank| of.priority == rank.priority && of.distance >= rank.distance;
            prop_assert!(here.iter().all(is_near));
        }
        prop_assert!(levels.iter().all(|level| level.table.len() > 0));
        prop_assert!(levels.iter().zip(levels.iter().skip(1)).all(|(a, b)| a.rank < b.rank));
    }
}
