//! Sequences that are more urgent than others, and those others.

use std::collections::HashMap;

use orion_proto::{Generation, Priority};

use super::{Given, alone, drawn, model};
use crate::Generator;

#[test]
fn the_more_urgent_takes_the_place_of_the_less() {
    let mut model = model("max_sequences = 1");
    model.add(1, Priority::Low, &drawn(1, 9, 50)).unwrap();
    model.step();
    model.add(2, Priority::High, &drawn(2, 9, 5)).unwrap();
    let mut order = Vec::new();
    while order.len() < 2 {
        let ended = model.step().into_iter().filter(|(_, delta)| delta.as_ref().unwrap().finish.is_some());
        order.extend(ended.map(|(id, _)| id));
    }
    assert_eq!(order, [2, 1]);
}

/// Two run and one more waits always, all of them more urgent.
#[test]
fn what_waits_behind_a_flood_of_more_urgent_ones_is_answered() {
    let (mut model, mut roomy) = (model("max_sequences = 2"), model(""));
    let low: Vec<Generation> = (0..3).map(|seed| drawn(seed, 9, 50)).collect();
    for (id, generation) in (0..).zip(&low) {
        model.add(id, Priority::Low, generation).unwrap();
    }
    let (mut given, mut next): (HashMap<u64, Given>, u64) = (HashMap::new(), 100);
    for step in 0.. {
        assert!(step < 4_000, "{} of 3 are answered", given.values().filter(|given| given.finish.is_some()).count());
        while model.load().running + model.load().waiting < 3 + low.len() {
            model.add(next, Priority::High, &drawn(next, 9, 20)).unwrap();
            next += 1;
        }
        for (id, delta) in model.step().into_iter().filter(|(id, _)| *id < 100) {
            given.entry(id).or_default().take(delta.unwrap());
        }
        if given.len() == low.len() && given.values().all(|given| given.finish.is_some()) {
            break;
        }
    }
    for (id, generation) in (0..).zip(&low) {
        assert!(given[&id].same(&alone(&mut roomy, generation)), "sequence {id}");
    }
}
