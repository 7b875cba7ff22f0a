//! What is measured, and what each row of the table is compared with.

use std::collections::HashMap;
use std::sync::Arc;

use allocation_counter::measure;

use crate::contender::{self, Contender};
use crate::garbage::Garbage;
use crate::plan::{Plan, Sizes, Span};
use crate::rounds::{self, Size};
use crate::shape::Settings;
use crate::{
    actix_apps, axum_apps, bearer, floor, governors, library, limiters, naive, prefixed,
    straightforward, token,
};

impl Plan {
    /// All scenarios at these sizes.
    pub fn new(sizes: &Sizes) -> Self {
        let mut plan = Self::default();
        let hot = plan.hot(sizes);
        let spans: Vec<_> = sizes
            .many
            .iter()
            .map(|keys| plan.random(*keys, sizes.size))
            .collect();
        if let ([few, .., many], Some(most)) = (&*spans, sizes.many.last()) {
            let group = format!("growth from {} to {most} keys", sizes.many[0]);
            let grown = |name: &str| Some(many.get(name)?.minus(few.get(name)?));
            let against = grown("straightforward");
            for name in ["straightforward", "floor", "Portunus, no fields"] {
                if let Some(span) = grown(name) {
                    plan.row(&group, name, span, against.clone());
                }
            }
        }
        plan.threads(sizes);
        plan.limiters(sizes);
        plan.garbage(sizes.size);
        let group = "a cache in front of a store that must be awaited, against the store in memory";
        let memory = &hot["Portunus, no fields"];
        let cached = &hot["Portunus, no fields, cached"];
        plan.row(group, "cached", cached.clone(), Some(memory.clone()));
        plan.row(group, "more than in memory", cached.minus(memory), None);
        plan.frameworks(sizes, &hot);
        plan
    }

    fn hot(&mut self, sizes: &Sizes) -> HashMap<&'static str, Span> {
        let settings = Settings::plenty(sizes.hot);
        let group = format!("{} keys in turn", sizes.hot);
        let alone = contender::bare(sizes.hot);
        let spans = self.group(&group, alone, contenders(settings), sizes.size, None);
        for row in &mut self.rows {
            row.charted = true;
        }
        spans
    }

    fn random(&mut self, keys: usize, size: Size) -> HashMap<&'static str, Span> {
        let settings = Settings::plenty(keys);
        // With more keys, the memory for all contenders together would not suffice.
        let others = if keys <= 10_000 {
            vec![
                straightforward::plain(settings),
                straightforward::with_fields(settings),
                naive::contender(settings),
                floor::contender(settings),
                floor::with_sliding_windows(settings),
                library::without_fields(settings),
                library::default(settings),
                library::audited(settings),
            ]
        } else {
            vec![
                straightforward::plain(settings),
                floor::contender(settings),
                library::without_fields(settings),
            ]
        };
        let group = format!("{keys} keys at random");
        self.group(&group, contender::bare(keys), others, size, None)
    }

    fn threads(&mut self, sizes: &Sizes) {
        for keys in [1, sizes.shared] {
            let settings = Settings::plenty(keys);
            let group = format!("two threads, keys: {keys}, against one thread");
            let alone = Arc::new(contender::bare(keys));
            let size = sizes.of_threads;
            let of = |plan: &mut Self, contender: &Arc<Contender>, threads| {
                plan.lane(rounds::threads(Arc::clone(contender), threads, size))
            };
            let (one, two) = (of(self, &alone, 1), of(self, &alone, 2));
            for contender in [
                straightforward::plain(settings),
                library::without_fields(settings),
            ] {
                let contender = Arc::new(contender);
                let alone = of(self, &contender, 1).minus(&one);
                let both = of(self, &contender, 2).minus(&two);
                self.row(&group, contender.name, both, Some(alone));
            }
        }
    }

    fn limiters(&mut self, sizes: &Sizes) {
        for keys in [&[1], &*sizes.many].concat() {
            let settings = Settings::plenty(keys);
            let group = format!("limiter alone, two windows, keys: {keys}");
            let twice = limiters::governor_twice(settings);
            let twice = self.lane(rounds::calls(keys, sizes.size, twice));
            let slot = limiters::by_slot(settings);
            let slot = self.lane(rounds::calls(keys, sizes.size, slot));
            self.row(
                &group,
                "governor, twice",
                twice.clone(),
                Some(twice.clone()),
            );
            self.row(&group, "Portunus by slot", slot, Some(twice));
        }
    }

    fn garbage(&mut self, size: Size) {
        for (name, garbage) in [
            ("wrong shape", Garbage::wrong_shape()),
            ("wrong checksum", Garbage::wrong_checksum()),
        ] {
            let refuse = move |_| garbage.refused() == Some(401);
            let allocated = measure(|| assert!(refuse(0), "garbage is refused")).count_total;
            let span = self.lane(rounds::calls(1, size, refuse));
            let row = self.row(
                "garbage, until the refusal, without its response",
                name,
                span,
                None,
            );
            row.allocations = i64::try_from(allocated).ok();
        }
    }

    fn frameworks(&mut self, sizes: &Sizes, hot: &HashMap<&'static str, Span>) {
        let settings = Settings::plenty(sizes.hot);
        let by_hand = Some(&hot["straightforward"]);
        let size = sizes.size;
        let others = vec![axum_apps::passing(settings), axum_apps::protected(settings)];
        let alone = axum_apps::alone(settings);
        let axum = self.group("axum", alone, others, size, None);
        let others = vec![
            actix_apps::passing(settings),
            actix_apps::protected(settings),
            actix_apps::httpauth(settings),
        ];
        let alone = actix_apps::alone(settings);
        let actix = self.group("actix-web", alone, others, size, by_hand);
        for row in self.rows.iter_mut().rev().take(5) {
            let both = |passing: &Span| passing.plus(&hot["Portunus"]);
            row.against = match &*row.name {
                "axum, Portunus" => Some(both(&axum["axum, passing on"])),
                "actix, Portunus" => Some(both(&actix["actix, passing on"])),
                "actix-web-httpauth" => row.against.take(),
                _ => None,
            };
            row.charted = row.name == "actix-web-httpauth";
        }
    }
}

/// All contenders in front of the service that does nothing.
pub fn contenders(settings: Settings) -> Vec<Contender> {
    vec![
        straightforward::plain(settings),
        straightforward::with_fields(settings),
        naive::contender(settings),
        floor::contender(settings),
        floor::with_sliding_windows(settings),
        bearer::contender(),
        governors::alone(settings),
        governors::layer(settings),
        prefixed::contender(settings),
        token::contender(settings),
        library::without_fields(settings),
        library::default(settings),
        library::audited(settings),
        library::cached(settings),
    ]
}
