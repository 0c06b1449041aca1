//! Who is served when there is more than a device can do.

use orion_proto::{ModelPolicy, Parameters, Priority};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

fn kept() -> ModelPolicy {
    ModelPolicy { min_replicas: 1, ..ModelPolicy::default() }
}

fn ask(model: usize, priority: Priority, tenant: &str, rows: usize) -> Ask {
    let tenant = (!tenant.is_empty()).then(|| Arc::from(tenant));
    Ask { rows, parameters: Parameters { priority, tenant, ..Parameters::default() }, ..Ask::of(model) }
}

/// The only device works until `until`, each batch as long as its curve says; `feed` is asked before each end.
fn work(world: &mut World, until: Nanos, mut feed: impl FnMut(&mut World)) {
    while world.now < until {
        feed(world);
        let Some(batch) = world.nodes[0].batches.front() else { return world.pass(MS) };
        let model = world.specs.iter().position(|spec| spec.name.as_str() == &*batch.model).unwrap();
        let rows = world.rows_of(batch);
        world.pass((world.curves[model].seconds(rows) * 1e9) as Nanos);
        world.finish(0, Fate::Ok);
    }
}

fn waiting(world: &World, tenant: &str) -> usize {
    let tenant = (!tenant.is_empty()).then_some(tenant);
    let of = |request: &Request<u64>| request.request.parameters.tenant.as_deref() == tenant;
    world.core.requests.iter().filter(|(_, request)| request.running.is_none() && of(request)).count()
}

#[test]
fn priorities_go_first() {
    let mut world = World::new(vec![model("m", 1, kept())], &[&[100]]);
    world.ask(0);
    use Priority::{Critical, High, Low, Normal, Realtime};
    for priority in [Low, Normal, High, Critical, Realtime] {
        (0..8).for_each(|_| {
            world.submit(ask(0, priority, "", 1)).unwrap();
        });
    }
    while world.finish(0, Fate::Ok).is_some() {}
    let order: Vec<u64> = world.ran[1..].iter().map(|(_, _, tickets)| (tickets[0] - 2) / 8).collect();
    assert_eq!(order, [4, 3, 2, 1, 0]);
}

#[test]
fn a_request_of_a_higher_priority_waits_for_no_flood_whatever_batches_that_makes() {
    use Priority::{Low, Normal, Realtime};
    for (flooding, urgent) in [(Normal, Realtime), (Low, Realtime), (Low, Normal)] {
        for model_asked in [0, 1] {
            let mut world = World::new(vec![model("m", 1, kept()), model("n", 1, kept())], &[&[100]]);
            let flood = |world: &mut World| {
                while waiting(world, "flood") < 400 {
                    world.submit(ask(0, flooding, "flood", 1)).unwrap();
                }
            };
            work(&mut world, 2_000 * MS, flood);
            let (asked, ticket) = (world.now, world.submit(ask(model_asked, urgent, "", 1)).unwrap());
            while world.outcome(ticket).is_none() {
                let soon = world.now + 1;
                work(&mut world, soon, flood);
            }
            // The flood waits for 600 ms.
            let waited = (world.now - asked) / MS;
            assert!(waited <= 110, "{waited} ms for {urgent:?} beside {flooding:?}, model {model_asked}");
        }
    }
}

#[test]
fn one_of_a_lower_priority_that_is_due_is_not_hidden_by_a_full_batch_that_is_not() {
    let far = ModelPolicy { slo: Some(Duration::from_secs(60)), ..kept() };
    let mut world = World::new(vec![model("m", 1, far)], &[&[100]]);
    let flood = |world: &mut World| {
        while waiting(world, "flood") < 40 {
            world.submit(ask(0, Priority::Normal, "flood", 1)).unwrap();
        }
    };
    work(&mut world, 500 * MS, flood);
    let ticket = world.submit(Ask { deadline: Some(1_000 * MS), ..ask(0, Priority::Low, "", 1) }).unwrap();
    let until = world.now + 1_000 * MS;
    work(&mut world, until, flood);
    assert_eq!(world.outcome(ticket), Some(Ok(())));
}

#[test]
fn the_most_urgent_stands_for_its_priority() {
    // Realtime batches that are not due yet are worth more than one realtime request that is: it must not wait for less
    // urgent ones meanwhile.
    let of = |slo| ModelPolicy { slo: Some(Duration::from_millis(slo)), ..kept() };
    let specs = vec![model("batched", 1, of(400)), model("due", 1, of(20)), model("critical", 1, kept())];
    let mut world = World::new(specs, &[]);
    world.curves.iter_mut().for_each(|curve| curve.per_row_seconds = 0.0);
    world.add(&[100], 0.0);
    let feed = |world: &mut World| {
        for (index, priority, tenant) in [(0, Priority::Realtime, "batched"), (2, Priority::Critical, "critical")] {
            while waiting(world, tenant) < 200 {
                world.submit(ask(index, priority, tenant, 1)).unwrap();
            }
        }
    };
    let mut longest = 0;
    for _ in 0..20 {
        let soon = world.now + 37 * MS;
        work(&mut world, soon, feed);
        let (asked, ticket) = (world.now, world.submit(ask(1, Priority::Realtime, "", 1)).unwrap());
        while world.outcome(ticket).is_none() {
            let soon = world.now + 1;
            work(&mut world, soon, feed);
        }
        longest = longest.max((world.now - asked) / MS);
    }
    assert!(longest <= 60, "{longest} ms");
}

#[test]
fn nothing_starves_beside_traffic_that_fills_the_device() {
    // (seconds of the request's own model, seconds within which it must be answered)
    for (base_seconds, bound) in [(0.004, 2), (3.0, 60)] {
        for balancer in ["", "round-robin"] {
            let slow = ModelPolicy { balancer: balancer.into(), ..kept() };
            let mut world = World::new(vec![model("m", 1, kept()), model("slow", 1, slow)], &[]);
            world.curves[1].base_seconds = base_seconds;
            world.add(&[100], 0.0);
            let flood = |world: &mut World| {
                while waiting(world, "flood") < 32 {
                    world.submit(ask(0, Priority::Realtime, "flood", 1)).unwrap();
                }
            };
            flood(&mut world);
            let low = world.submit(ask(1, Priority::Low, "", 1)).unwrap();
            let until = world.now + bound * 1_000 * MS;
            work(&mut world, until, flood);
            assert_eq!(world.outcome(low), Some(Ok(())), "of {base_seconds} s, balancer '{balancer}'");
        }
    }
}

#[test]
fn a_deadline_that_is_far_off_is_met_beside_traffic_that_fills_the_device() {
    for priority in [Priority::Critical, Priority::Normal, Priority::Low] {
        let mut world = World::new(vec![model("m", 1, kept()), model("other", 1, kept())], &[&[100]]);
        let flood = |world: &mut World| {
            while waiting(world, "flood") < 32 {
                world.submit(ask(0, Priority::Realtime, "flood", 1)).unwrap();
            }
        };
        flood(&mut world);
        let deadline = Some(world.now + 8_000 * MS);
        let patient = world.submit(Ask { deadline, ..ask(1, priority, "", 1) }).unwrap();
        let until = world.now + 8_000 * MS;
        work(&mut world, until, flood);
        assert_eq!(world.outcome(patient), Some(Ok(())), "{priority:?}");
    }
}

#[test]
fn a_request_without_rows_is_answered_and_predictions_beyond_all_time_do_no_harm() {
    let mut world = World::new(vec![model("m", 1, kept()), model("n", 1, kept())], &[]);
    world.curves.iter_mut().for_each(|curve| (curve.base_seconds, curve.per_row_seconds) = (1e300, 86_400.0));
    world.add(&[100], 0.0);
    let rows = [0, 300_000, 1, 300_000].into_iter().enumerate();
    let asked: Vec<u64> =
        rows.map(|(at, rows)| world.submit(Ask { rows, ..Ask::of(at % 2) })).filter_map(Result::ok).collect();
    assert!(!asked.is_empty());
    while world.finish(0, Fate::Ok).is_some() {}
    assert!(asked.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
}

#[test]
fn tenants_that_flood_share_alike_whatever_their_requests_and_models() {
    // Rows of the second tenant's requests, its model, that model's seconds.
    for (rows, other, base_seconds) in [(1, 0, 0.004), (4, 0, 0.004), (1, 1, 0.004), (1, 1, 0.1)] {
        let mut world = World::new(vec![model("m", 1, kept()), model("other", 1, kept())], &[]);
        world.curves[1].base_seconds = base_seconds;
        world.add(&[100], 0.0);
        // The first is alone for a while: that must not be held against it.
        let mut time = [0.0f64; 2];
        for (both, seconds) in [(false, 4), (true, 12)] {
            let until = world.now + seconds * 1_000 * MS;
            let mut seen = world.ran.len();
            work(&mut world, until, |world| {
                while waiting(world, "a") < 24 {
                    world.submit(ask(0, Priority::Normal, "a", 1)).unwrap();
                }
                while both && waiting(world, "b") < 24 {
                    world.submit(ask(other, Priority::Normal, "b", rows)).unwrap();
                }
                for (_, _, tickets) in world.ran[seen..].iter().filter(|_| both) {
                    let of = |ticket: &u64| {
                        let request = world.core.requests.iter().find(|(_, request)| request.ticket == *ticket);
                        request.map(|(_, request)| (request.lane.tenant as usize - 1, request.rows, request.model))
                    };
                    let all: Vec<_> = tickets.iter().filter_map(of).collect();
                    let total: usize = all.iter().map(|(_, rows, _)| rows).sum();
                    for (tenant, rows, model) in all {
                        let seconds = world.curves[model - 1].seconds(total);
                        time[tenant] += seconds * rows as f64 / total as f64;
                    }
                }
                seen = world.ran.len();
            });
        }
        let share = time[0] / (time[0] + time[1]);
        assert!((0.4..0.6).contains(&share), "{share} of the time for one of two, {rows} rows, {base_seconds} s");
    }
}

#[test]
fn a_tenant_that_trickles_waits_for_few_batches_of_one_that_floods() {
    let mut world = World::new(vec![model("m", 1, kept()), model("other", 1, kept())], &[&[100]]);
    let mut latest: Option<(u64, Nanos)> = None;
    let mut worst = 0;
    let until = world.now + 5_000 * MS;
    work(&mut world, until, |world| {
        while waiting(world, "flood") < 64 {
            world.submit(ask(0, Priority::Normal, "flood", 1)).unwrap();
        }
        if let Some((ticket, since)) = latest {
            if world.outcome(ticket).is_none() {
                return;
            }
            worst = worst.max(world.now - since);
        }
        latest = Some((world.submit(ask(1, Priority::Normal, "trickle", 1)).unwrap(), world.now));
    });
    assert!(world.sent.len() > 300 && worst <= 80 * MS, "{} ms", worst / MS);
}
