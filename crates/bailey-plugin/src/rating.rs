//! How much a plugin could do if it were hostile, as a number with its reasons.

use serde::{Deserialize, Serialize};

/// From 8, a plugin that gets its request and nothing else, down to 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// 1 to 8.
    pub score: u8,
    /// What costs points, and what is worth knowing though it costs none.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Points that it costs.
    pub points: u8,
    /// For people.
    pub text: String,
}

impl Rating {
    /// The best.
    pub const BEST: u8 = 8;

    /// What is left when the reasons are taken off.
    pub fn of(reasons: Vec<Reason>) -> Self {
        let cost = reasons
            .iter()
            .fold(0_u8, |cost, reason| cost.saturating_add(reason.points));
        Self {
            score: Self::BEST.saturating_sub(cost).max(1),
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_stays_between_one_and_eight() {
        let cost = |points| Reason {
            points,
            text: String::new(),
        };
        let score = |points: &[u8]| Rating::of(points.iter().copied().map(cost).collect()).score;
        assert_eq!(
            (score(&[]), score(&[1, 2]), score(&[7]), score(&[200, 200])),
            (8, 5, 1, 1)
        );
    }
}
