use super::*;

fn at(seconds: u32, ordinal: u32) -> Optime {
    Optime::new(Ts::new(seconds, ordinal), 1)
}

fn base(name: &str, incarnation: u64, at: Optime) -> Base {
    let snapshot = (!name.starts_with("way")).then(|| SnapshotId::new(name).unwrap());
    Base {
        name: name.to_owned(),
        snapshot,
        incarnation: Incarnation(incarnation),
        at,
        documents: 0,
        bytes: 0,
    }
}

/// History 1: snapshots at 100,5 and 200,1, stored from 90 to 300,7. History 2: from 400, first image at 450,1, a
/// waypoint at 480,1, tip 500,3.
fn backup() -> (Vec<Base>, Vec<Proven>) {
    (
        vec![
            base("one", 1, at(100, 5)),
            base("two", 1, at(200, 1)),
            base("three", 2, at(450, 1)),
            base("way", 2, at(480, 1)),
        ],
        vec![
            Proven {
                incarnation: Incarnation(1),
                start: at(90, 1),
                tip: at(300, 7),
            },
            Proven {
                incarnation: Incarnation(2),
                start: at(400, 1),
                tip: at(500, 3),
            },
        ],
    )
}

fn ask(wanted: Wanted) -> Result<(String, Ts), NotRestorable> {
    let (bases, ranges) = backup();
    plan(&bases, &ranges, Incarnation(2), &wanted).map(|p| (p.base.name, p.until))
}

#[test]
fn positions_are_restored_from_the_nearest_image_before_them_or_refused_with_the_nearest_instants() {
    let ts = Ts::new;
    let (first, last1, first2, last2) = (ts(100, 5), ts(300, 7), ts(450, 1), ts(500, 3));
    for (position, base) in [
        (ts(100, 5), "one"),
        (ts(100, 6), "one"),
        (ts(199, 9), "one"),
        (ts(200, 0), "one"),
        (ts(200, 1), "two"),
        (ts(250, 0), "two"),
        (last1, "two"),
        (first2, "three"),
        (ts(480, 0), "three"),
        (ts(480, 1), "way"),
        (last2, "way"),
    ] {
        assert_eq!(
            ask(Wanted::Position(position)),
            Ok((base.to_owned(), position)),
            "{position}"
        );
    }
    for (position, before, after) in [
        (Ts::ZERO, None, Some(first)),
        (ts(95, 1), None, Some(first)),
        (ts(100, 4), None, Some(first)),
        (ts(300, 8), Some(last1), Some(first2)),
        (ts(420, 1), Some(last1), Some(first2)),
        (ts(500, 4), Some(last2), None),
        (Ts::MAX, Some(last2), None),
    ] {
        let refused = ask(Wanted::Position(position)).unwrap_err();
        assert_eq!(
            (refused.reason, refused.before, refused.after),
            (Reason::Outside(position), before, after)
        );
    }
}

#[test]
fn a_refusal_names_the_nearest_instants_in_words() {
    let refused = ask(Wanted::Position(Ts::new(420, 1))).unwrap_err();
    let text = "420,1 lies outside of what can be restored; the nearest restorable instants are 300,7 and 450,1";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn the_latest_instant_is_the_tip_of_the_current_history() {
    assert_eq!(ask(Wanted::Latest), Ok(("way".to_owned(), Ts::new(500, 3))));
    let (bases, ranges) = backup();
    let refused = plan(&bases, &ranges, Incarnation(3), &Wanted::Latest).unwrap_err();
    assert_eq!(refused.reason, Reason::NotSynced(Incarnation(3)));
    assert_eq!(refused.before, Some(Ts::new(500, 3)));
    let refused = plan(&[], &ranges, Incarnation(1), &Wanted::Latest).unwrap_err();
    assert!(refused.to_string().contains("wait for the first snapshot"), "{refused}");
}

#[test]
fn a_snapshot_of_an_old_history_stays_restorable() {
    let id = |name| Wanted::Snapshot(SnapshotId::new(name).unwrap());
    assert_eq!(ask(id("one")), Ok(("one".to_owned(), Ts::new(100, 5))));
    assert!(matches!(ask(id("none")).unwrap_err().reason, Reason::NoSnapshot(_)));
}

#[test]
fn a_snapshot_whose_oplog_is_gone_restores_as_itself_only() {
    let (bases, mut ranges) = backup();
    ranges[0].start = at(150, 1);
    let ask = |ts| plan(&bases, &ranges, Incarnation(2), &Wanted::Position(ts)).map(|p| p.base.name);
    assert_eq!(ask(Ts::new(100, 5)), Ok("one".to_owned()));
    let refused = ask(Ts::new(100, 6)).unwrap_err();
    assert_eq!(
        (refused.before, refused.after),
        (Some(Ts::new(100, 5)), Some(Ts::new(200, 1)))
    );
    let stretches: Vec<_> = restorable(&bases, &ranges).iter().map(|r| (r.from, r.to)).collect();
    assert_eq!(
        stretches,
        [
            (Ts::new(100, 5), Ts::new(100, 5)),
            (Ts::new(200, 1), Ts::new(300, 7)),
            (Ts::new(450, 1), Ts::new(500, 3))
        ]
    );
}

#[test]
fn where_two_histories_overlap_the_newer_one_counts() {
    let (bases, mut ranges) = backup();
    ranges[0].tip = at(460, 1);
    let got = plan(&bases, &ranges, Incarnation(2), &Wanted::Position(Ts::new(455, 0))).unwrap();
    assert_eq!(got.base.name, "three");
}

#[test]
fn a_second_of_the_clock_means_its_last_entry_once_it_is_over() {
    let wall = |second: i64, found: &[(u64, Optime)]| {
        let found = found.iter().map(|(i, o)| (Incarnation(*i), *o)).collect();
        ask(Wanted::WallClock {
            ms: second * 1000 + 999,
            found,
        })
    };
    assert_eq!(wall(210, &[(1, at(209, 3))]), Ok(("two".to_owned(), Ts::new(209, 3))));
    assert_eq!(wall(200, &[(1, at(200, 9))]), Ok(("two".to_owned(), Ts::new(200, 9))));
    assert_eq!(
        wall(490, &[(1, at(300, 7)), (2, at(485, 1))]),
        Ok(("way".to_owned(), Ts::new(485, 1)))
    );
    assert_eq!(
        wall(500, &[(2, at(500, 3))]).unwrap_err().reason,
        Reason::SecondNotOver(500_999)
    );
    let refused = wall(420, &[(1, at(300, 7)), (2, at(410, 1))]).unwrap_err();
    assert_eq!(
        (refused.before, refused.after),
        (Some(Ts::new(300, 7)), Some(Ts::new(450, 1)))
    );
    assert_eq!(
        wall(509, &[(2, at(500, 3))]).unwrap_err().reason,
        Reason::SecondNotOver(509_999)
    );
    assert_eq!(refused.reason, Reason::OutsideClock(420_999));
    assert!(wall(-5, &[]).is_err());
    assert!(wall(i64::MAX / 2000, &[]).is_err());
}
