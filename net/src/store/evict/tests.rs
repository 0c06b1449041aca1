use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    Evictor, NoRoom, Policy, REMEMBERED,
    trace::{KINDS, Trace},
};

const POLICIES: [Policy; 5] = [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Ttl { seconds: 3600 }, Policy::Adaptive];

#[test]
fn the_adaptive_policy_is_best_or_next_to_it_on_every_trace() {
    // Constants were chosen by means over other seeds. Of one seed, a few large models decide: 0.01 is chance.
    const BEHIND: f64 = 0.01;
    for seed in [1, 2, 3, 4] {
        for kind in KINDS {
            let trace = Trace::new(kind, seed);
            for tenths in [1, 3] {
                let quota = trace.bytes / 10 * tenths;
                let ratio = |policy| trace.byte_hit_ratio(policy, quota);
                let [lru, lfu, fifo, adaptive] = [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Adaptive].map(ratio);
                let s3 = trace.s3_fifo(quota);
                let line = format!(
                    "seed {seed}, {:15} {tenths}0%: lru {lru:.3} lfu {lfu:.3} fifo {fifo:.3} s3-fifo {s3:.3} \
                     adaptive {adaptive:.3}",
                    kind.name
                );
                println!("{line}");
                assert!(adaptive >= [lru, lfu, fifo, s3].into_iter().fold(0.0, f64::max) - BEHIND, "{line}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Admitted(u8, u64, u64),
    Used(u8, u64),
    Removed(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let key = || 0u8..12;
    // Seconds go back and forth; bytes are few, or as many as a number holds.
    let bytes = prop_oneof![0u64..100, Just(u64::MAX), any::<u64>()];
    prop_oneof![
        3 => (key(), bytes, any::<u64>()).prop_map(|(key, bytes, now)| Event::Admitted(key, bytes, now)),
        4 => (key(), any::<u64>()).prop_map(|(key, now)| Event::Used(key, now)),
        1 => key().prop_map(Event::Removed),
    ]
}

fn play(evictor: &mut Evictor, events: &[Event]) {
    for event in events {
        match event {
            Event::Admitted(key, bytes, now) => evictor.admitted(&key.to_string(), *bytes, *now),
            Event::Used(key, now) => evictor.used(&key.to_string(), *now),
            Event::Removed(key) => evictor.removed(&key.to_string()),
        }
    }
}

fn restarted(evictor: &Evictor) -> Evictor {
    serde_json::from_str(&serde_json::to_string(evictor).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn victims_are_just_what_is_needed_of_what_is_not_pinned(
        policy in prop::sample::select(&POLICIES[..]),
        events in prop::collection::vec(event(), 0..60),
        pins in prop::collection::btree_set(0u8..12, 0..6),
        quota in prop_oneof![0u64..400, any::<u64>()],
        needed in prop_oneof![0u64..200, any::<u64>()],
    ) {
        let mut evictor = Evictor::new(policy);
        play(&mut evictor, &events);
        let stored: BTreeMap<String, u64> = evictor.stored().map(|(key, bytes)| (key.to_owned(), bytes)).collect();
        let pins: BTreeSet<String> = pins.into_iter().map(|key| key.to_string()).collect();
        let sum = |pinned: bool| -> u128 {
            stored.iter().filter(|(key, _)| pins.contains(*key) == pinned).map(|(_, bytes)| u128::from(*bytes)).sum()
        };
        match evictor.victims(quota, needed, &|key| pins.contains(key)) {
            Ok(victims) => {
                prop_assert_eq!(victims.iter().collect::<BTreeSet<_>>().len(), victims.len());
                prop_assert!(victims.iter().all(|key| stored.contains_key(key) && !pins.contains(key)));
                let freed: u128 = victims.iter().map(|key| u128::from(stored[key])).sum();
                let fits = |freed: u128| sum(true) + sum(false) - freed + u128::from(needed) <= u128::from(quota);
                prop_assert!(fits(freed));
                for key in &victims {
                    prop_assert!(!fits(freed - u128::from(stored[key])), "{} need not leave", key);
                }
                victims.iter().for_each(|key| evictor.removed(key));
                prop_assert_eq!(evictor.victims(quota, needed, &|_| false), Ok(Vec::new()));
            }
            Err(NoRoom { pinned, freeable, .. }) => {
                prop_assert!(sum(true) + u128::from(needed) > u128::from(quota));
                prop_assert_eq!(u128::from(pinned), sum(true).min(u64::MAX.into()));
                prop_assert_eq!(u128::from(freeable), sum(false).min(u64::MAX.into()));
            }
        }
    }

    #[test]
    fn after_a_restart_it_chooses_as_it_would_have(
        policy in prop::sample::select(&POLICIES[..]),
        before in prop::collection::vec(event(), 0..60),
        after in prop::collection::vec(event(), 0..60),
        quotas in prop::collection::vec(0u64..400, 1..5),
        now in any::<u64>(),
    ) {
        let mut evictor = Evictor::new(policy);
        play(&mut evictor, &before);
        let mut again = restarted(&evictor);
        play(&mut evictor, &after);
        play(&mut again, &after);
        for quota in quotas {
            prop_assert_eq!(evictor.victims(quota, 0, &|_| false), again.victims(quota, 0, &|_| false));
        }
        prop_assert_eq!(evictor.expired(now, &|_| false), again.expired(now, &|_| false));
    }

    #[test]
    fn a_state_with_any_numbers_does_no_harm(
        whole in prop::collection::vec(any::<u64>(), 1..20),
        broken in prop::collection::vec(prop::sample::select(&[0.0, 1.0, -1.0, f64::MAX, f64::MIN_POSITIVE][..]), 1..20),
        events in prop::collection::vec(event(), 0..4),
    ) {
        let mut evictor = Evictor::new(Policy::Adaptive);
        (0..3).for_each(|key| evictor.admitted(&key.to_string(), 10, 0));
        let mut state = serde_json::to_value(&evictor).unwrap();
        change(&mut state, &mut whole.into_iter().cycle(), &mut broken.into_iter().cycle());
        let mut changed: Evictor = serde_json::from_value(state).unwrap();
        play(&mut changed, &events);
        let _ = changed.victims(100, 10, &|_| false);
        restarted(&changed);
    }
}

fn change(value: &mut serde_json::Value, whole: &mut dyn Iterator<Item = u64>, broken: &mut dyn Iterator<Item = f64>) {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => *value = broken.next().unwrap().into(),
        serde_json::Value::Number(_) => *value = whole.next().unwrap().into(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| change(value, whole, broken)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|value| change(value, whole, broken)),
        _ => {}
    }
}

/// Ten bytes each: `a` came first, `b` is used most, `c` is the last used of the two others, `d` came last.
fn four(policy: Policy) -> Evictor {
    let mut evictor = Evictor::new(policy);
    for (now, key) in (0..).zip(["a", "b", "c", "d", "b", "b", "a", "a", "b", "c"]) {
        if evictor.stored().any(|(stored, _)| stored == key) {
            evictor.used(key, now);
        } else {
            evictor.admitted(key, 10, now);
        }
    }
    evictor
}

#[test]
fn each_policy_has_its_order() {
    #[rustfmt::skip]
    let table = [
        (Policy::Lru,                  "dabc"),
        (Policy::Ttl { seconds: 3600 }, "dabc"),
        (Policy::Fifo,                 "abcd"),
        (Policy::Lfu,                  "dcab"),
        (Policy::Adaptive,             "dcab"),
    ];
    for (policy, order) in table {
        let mut evictor = four(Policy::Lru);
        evictor.set_policy(policy);
        let victims = evictor.victims(40, 40, &|_| false).unwrap();
        assert_eq!(victims.concat(), order, "{policy}");
        let victims = evictor.victims(40, 15, &|key| order.starts_with(key)).unwrap();
        assert_eq!(victims.concat(), order[1..3], "{policy}, the first is pinned");
        let refused = evictor.victims(40, 15, &|key| key != "a").unwrap_err();
        assert_eq!(refused, NoRoom { needed: 15, quota: 40, pinned: 30, freeable: 10 });
    }
}

#[test]
fn what_comes_back_came_last() {
    let mut evictor = four(Policy::Fifo);
    evictor.removed("a");
    evictor.admitted("a", 10, 20);
    evictor.admitted("b", 10, 21);
    assert_eq!(evictor.victims(40, 40, &|_| false).unwrap().concat(), "bcda", "b had not left");
}

#[test]
fn what_is_cheap_to_keep_is_spared_when_a_dearer_one_has_to_leave_anyway() {
    let mut evictor = Evictor::new(Policy::Lru);
    evictor.admitted("small", 1, 0);
    evictor.admitted("large", 50, 1);
    evictor.admitted("last", 50, 2);
    assert_eq!(evictor.victims(101, 40, &|_| false).unwrap(), ["large"]);
    assert_eq!(evictor.victims(101, 51, &|_| false).unwrap(), ["small", "large"]);
    // The quota is less than it was.
    assert_eq!(evictor.victims(50, 0, &|_| false).unwrap(), ["small", "large"]);
}

#[test]
fn an_old_favourite_leaves_at_last() {
    for policy in [Policy::Lfu, Policy::Adaptive] {
        let mut evictor = Evictor::new(policy);
        evictor.admitted("old", 10, 0);
        (0..1000).for_each(|now| evictor.used("old", now));
        evictor.admitted("new", 10, 1000);
        let uses = (1000..20_000).take_while(|now| {
            evictor.used("new", *now);
            evictor.victims(20, 10, &|_| false).unwrap() == ["new"]
        });
        let uses = uses.count();
        assert!((10..1000).contains(&uses), "{policy}: {uses} uses");
    }
}

#[test]
fn only_what_was_not_used_for_so_long_expires_and_a_clock_that_jumps_back_keeps_it() {
    let mut evictor = four(Policy::Ttl { seconds: 5 });
    assert_eq!(evictor.expired(11, &|_| false), ["d"]);
    assert_eq!(evictor.expired(13, &|key| key == "d"), ["a", "b"]);
    assert!(evictor.expired(0, &|_| false).is_empty());
    evictor.set_policy(Policy::Lru);
    assert!(evictor.expired(u64::MAX, &|_| false).is_empty());
}

#[test]
fn what_left_is_remembered_but_not_for_ever() {
    let mut evictor = four(Policy::Adaptive);
    evictor.removed("b");
    evictor.admitted("e", 10, 20);
    evictor.admitted("b", 10, 21);
    assert_eq!(evictor.victims(50, 50, &|_| false).unwrap().last().unwrap(), "b", "it has still been used the most");
    for key in 0..2 * REMEMBERED {
        evictor.admitted(&format!("scan {key}"), 10, 30);
        evictor.removed(&format!("scan {key}"));
    }
    assert_eq!(evictor.artifacts.len(), 5 + REMEMBERED);
    assert_eq!(evictor.stored().count(), 5);
    let state = serde_json::to_string(&evictor).unwrap();
    assert!(state.len() < evictor.artifacts.len() * 200, "{} bytes", state.len());
}

#[test]
fn a_policy_is_called_by_its_name() {
    for policy in POLICIES {
        assert_eq!(policy.to_string().parse(), Ok(policy));
        assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
        assert_eq!(serde_json::from_str::<Policy>(&format!("\"{policy}\"")).unwrap(), policy);
    }
    for wrong in ["", "LRU", "ttl", "ttl:", "ttl:0", "ttl:-1", "ttl:1h", "ttl:99999999999999999999"] {
        let message = wrong.parse::<Policy>().unwrap_err().to_string();
        assert!(["lru", "lfu", "fifo", "ttl:SECONDS", "adaptive"].iter().all(|name| message.contains(name)));
    }
}
