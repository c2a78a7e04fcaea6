//! Two ways to one instant, for a proof. Pure.
//!
//! The near way starts from the newest image at or before the instant, the far way from the next older one and takes the
//! oplog in between once more. What the daily work put into the newer image must be what a replay of the older one gives.

use headwater_model::{Incarnation, Ts};

use super::{Base, Plan, Proven, reach};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// From the newest image.
    pub near: Plan,
    /// From the one before it.
    pub far: Plan,
}

/// The two ways to an instant; `None` where there is only one, or none.
pub fn ways(bases: &[Base], ranges: &[Proven], current: Incarnation, at: Ts) -> Option<Ways> {
    let mut reaching: Vec<&Base> = bases
        .iter()
        .filter(|base| base.incarnation == current && base.at.ts <= at && at <= reach(base, ranges))
        .collect();
    reaching.sort_by_key(|base| std::cmp::Reverse(base.at));
    let near = *reaching.first()?;
    let far = *reaching.iter().find(|base| base.at < near.at)?;
    let plan = |base: &Base| Plan {
        base: base.clone(),
        until: at,
        as_it_is: false,
    };
    Some(Ways {
        near: plan(near),
        far: plan(far),
    })
}

/// The instants among which one is chosen at random: from the first image that has another before it, to the tip.
pub fn span(bases: &[Base], ranges: &[Proven], current: Incarnation) -> Option<(Ts, Ts)> {
    let instants = bases
        .iter()
        .filter(|base| base.incarnation == current)
        .map(|base| base.at.ts);
    let from = instants
        .filter(|at| ways(bases, ranges, current, *at).is_some())
        .min()?;
    let bases = bases
        .iter()
        .filter(|base| base.incarnation == current && base.at.ts >= from);
    let to = bases.map(|base| reach(base, ranges)).max()?;
    Some((from, to.max(from)))
}

/// An instant within a span, by a number drawn at random.
pub fn within((from, to): (Ts, Ts), drawn: u64) -> Ts {
    let seconds = u64::from(to.seconds().saturating_sub(from.seconds())) + 1;
    let second = from.seconds().saturating_add((drawn % seconds) as u32);
    Ts::new(second, u32::MAX).clamp(from, to)
}

#[cfg(test)]
mod tests {
    use headwater_model::Optime;

    use super::*;

    fn base(seconds: u32) -> Base {
        Base {
            name: format!("i{seconds}"),
            snapshot: None,
            incarnation: Incarnation(1),
            at: at(seconds),
            documents: 0,
            bytes: 0,
        }
    }

    fn at(seconds: u32) -> Optime {
        Optime::new(Ts::new(seconds, 1), 1)
    }

    fn range(start: u32, tip: u32) -> Proven {
        Proven {
            incarnation: Incarnation(1),
            start: at(start),
            tip: at(tip),
        }
    }

    #[test]
    fn an_instant_is_reached_from_the_two_newest_images_before_it() {
        let bases = [base(10), base(20), base(30)];
        let found = |seconds: u32, ranges: &[Proven]| {
            let ways = ways(&bases, ranges, Incarnation(1), Ts::new(seconds, 1))?;
            Some((ways.near.base.at.ts.seconds(), ways.far.base.at.ts.seconds()))
        };
        let whole = [range(5, 40)];
        for (seconds, want) in [
            (5, None),
            (15, None),
            (20, Some((20, 10))),
            (30, Some((30, 20))),
            (40, Some((30, 20))),
            (41, None),
        ] {
            assert_eq!(found(seconds, &whole), want, "{seconds}");
        }
        // The image itself is a way to its own instant only, where the oplog after it is lost.
        assert_eq!(found(25, &[range(5, 12), range(22, 40)]), None);
        assert_eq!(found(35, &[range(5, 12), range(22, 40)]), None);
        assert_eq!(found(35, &[range(5, 12), range(15, 40)]), Some((30, 20)));
    }

    #[test]
    fn the_span_begins_at_the_second_image_and_every_draw_lies_within() {
        let whole = [range(5, 40)];
        assert_eq!(span(&[base(10)], &whole, Incarnation(1)), None);
        assert_eq!(span(&[base(10), base(10)], &whole, Incarnation(1)), None);
        let found = span(&[base(10), base(20)], &whole, Incarnation(1)).unwrap();
        assert_eq!(found, (Ts::new(20, 1), Ts::new(40, 1)));
        for drawn in 0..100 {
            let instant = within(found, drawn);
            assert!(found.0 <= instant && instant <= found.1);
            assert!(ways(&[base(10), base(20)], &whole, Incarnation(1), instant).is_some());
        }
    }
}
