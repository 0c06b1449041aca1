//! Models that workers fetch: who is asked, where they are loaded, and who brings them ahead of need.

use super::*;

const PATH: &str = "store:m@1";
const BYTES: u64 = 1_000_000_000;
const SECOND: Nanos = 1_000_000_000;

fn large() -> ModelSpec {
    ModelSpec {
        memory_bytes: BYTES,
        policy: orion_proto::ModelPolicy { min_replicas: 1, ..Default::default() },
        ..spec()
    }
}

fn report(order: u64, state: ModelState) -> Report {
    Report {
        name: "m".into(),
        device: "cpu0".into(),
        state,
        error: String::new(),
        progress: 1.0,
        spec: Some(large()),
        curve: ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.001 },
        order,
        load_seconds: 0.1,
        peak_bytes: 0,
    }
}

/// Workers with links of so many bytes a second.
fn core_of(links: &[f64]) -> (TestCore, Vec<u64>) {
    let mut core = TestCore::new(7, Limits::default());
    core.want(0, &ModelName::new("m").unwrap(), PATH.into(), false);
    let sessions = links.iter().enumerate().map(|(index, link)| {
        let mut hello = hello(&format!("w{index}"), 1);
        hello.capability.as_mut().unwrap().devices[0].memory_total_bytes = 4 * BYTES;
        hello.capability.as_mut().unwrap().devices[0].memory_free_bytes = 4 * BYTES;
        let joined = core.join(0, hello, "grpc", index as u64).unwrap();
        core.start(0, joined.session);
        let figures = session::Measurement { scheduler_bytes_per_second: *link, ..Default::default() };
        core.measured(joined.session, figures);
        joined.session
    });
    let sessions = sessions.collect();
    (core, sessions)
}

/// Who is asked to say what it has, and to bring the model.
fn pulls(commands: &[Command<u64, u64>]) -> (Vec<u64>, Vec<u64>) {
    let of = |wanted: bool| {
        let pull = |command: &Command<u64, u64>| match command {
            Command::Pull { link, path, fetch, .. } if path == PATH && *fetch == wanted => Some(*link),
            _ => None,
        };
        commands.iter().filter_map(pull).collect()
    };
    (of(false), of(true))
}

fn load(commands: &[Command<u64, u64>]) -> Option<(u64, u64)> {
    commands.iter().find_map(|command| match command {
        Command::Load { link, order, .. } => Some((*link, *order)),
        _ => None,
    })
}

#[test]
fn it_is_read_by_one_loaded_where_least_is_missing_and_brought_to_one_more() {
    let (mut core, sessions) = core_of(&[1e8, 1e9, 2e8]);
    let commands = core.take_commands();
    assert_eq!(pulls(&commands), (vec![0, 1, 2], vec![]));
    let asked: Vec<(u64, u64)> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Inspect { link, order, .. } => Some((*link, *order)),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 1, "an origin is asked once");
    core.holds(0, sessions[0], PATH, None);
    core.holds(0, sessions[1], PATH, None);
    core.holds(0, sessions[2], PATH, Some(0));
    core.report(0, sessions[asked[0].0 as usize], report(asked[0].1, ModelState::Cold));
    let times = [0, 1, 2].map(|worker| core.fetch_time(1, worker) / SECOND);
    assert_eq!(times, [10, 1, 0]);
    core.tick(MS);
    let commands = core.take_commands();
    let (link, order) = load(&commands).unwrap();
    assert_eq!(link, 2, "it is there");
    assert_eq!(pulls(&commands), (vec![0, 1], vec![]), "they had nobody to ask");
    (0..2).for_each(|worker| core.holds(MS, sessions[worker], PATH, None));
    core.tick(MS + MS / 2);
    assert_eq!(pulls(&core.take_commands()).1, [1], "the one with the faster link");
    core.report(2 * MS, sessions[2], report(order, ModelState::Ready));
    core.tick(4 * MS);
    assert_eq!(pulls(&core.take_commands()).1, [] as [u64; 0], "one at a time");
    core.holds(5 * MS, sessions[1], PATH, None);
    core.tick(6 * MS);
    assert_eq!(pulls(&core.take_commands()).1, [0], "the other, since that one failed");
    core.holds(7 * MS, sessions[0], PATH, Some(0));
    core.tick(20 * MS);
    assert_eq!(pulls(&core.take_commands()).1, [] as [u64; 0], "one more is enough");
}

#[test]
fn peers_are_ranked_by_the_seconds_that_their_link_to_the_asking_worker_takes() {
    let mut core = TestCore::new(7, Limits::default());
    core.want(0, &ModelName::new("m").unwrap(), PATH.into(), false);
    let sessions: Vec<u64> = (0..4)
        .map(|index| {
            let mut hello = hello(&format!("w{index}"), 1);
            hello.peer_address = format!("10.0.0.{index}:1");
            let session = core.join(0, hello, "grpc", index).unwrap().session;
            core.start(0, session);
            let rate = 1e8 * (index + 1) as f64;
            core.measured(session, session::Measurement { scheduler_bytes_per_second: rate, ..Default::default() });
            session
        })
        .collect();
    let address = |worker: usize| format!("10.0.0.{worker}:1");
    assert_eq!(core.peers_of(1, 0), [3, 2, 1].map(address));
    // The fastest to the scheduler is slow on the way to the first.
    let link = session::PeerLink { address: address(0), bytes_per_second: 1e6, ..Default::default() };
    core.telemetry(0, sessions[3], session::Telemetry { peers: vec![link], ..Default::default() });
    assert_eq!(core.peers_of(1, 0), [2, 1, 3].map(address));
    assert_eq!(core.peers_of(1, 1), [3, 2, 0].map(address));
}

/// Workers that can be reached only through the scheduler, with links of so many bytes a second.
fn behind_nats(links: &[f64], limits: Limits) -> (TestCore, Vec<u64>) {
    let mut core = TestCore::new(7, limits);
    core.want(0, &ModelName::new("m").unwrap(), PATH.into(), false);
    let sessions = links.iter().enumerate().map(|(index, rate)| {
        let hello = session::Hello { relayed: true, ..hello(&format!("w{index}"), 1) };
        let session = core.join(0, hello, "grpc", index as u64).unwrap().session;
        core.start(0, session);
        core.measured(session, session::Measurement { scheduler_bytes_per_second: *rate, ..Default::default() });
        core.holds(0, session, PATH, None);
        session
    });
    let sessions = sessions.collect();
    (core, sessions)
}

#[test]
fn who_has_a_model_and_is_reached_nowhere_is_named_last_and_its_way_has_its_price() {
    let limits = Limits { relay_bytes_per_second: 3e8 as u64, ..Limits::default() };
    let (mut core, sessions) = behind_nats(&[1e9, 1e8, 5e8, 1e9], limits);
    assert_eq!(core.peers_of(1, 0), [] as [&str; 0], "nobody has it");
    core.holds(0, sessions[1], PATH, Some(0));
    assert_eq!(core.peers_of(1, 0), ["relay:w1"]);
    let seconds = |core: &TestCore| [0, 2].map(|worker| BYTES as f64 / core.fetch_rate(1, worker));
    assert_eq!(seconds(&core), [10.0, 10.0], "the sender's link");
    core.holds(0, sessions[3], PATH, Some(0));
    assert_eq!(core.peers_of(1, 0), ["relay:w3", "relay:w1"], "the faster first");
    assert_eq!(seconds(&core).map(f64::round), [3.0, 3.0], "what the scheduler relays");
    // One that is reached costs no more than the receiver's own link, and is asked first.
    let hello = session::Hello { peer_address: "10.0.0.9:1".into(), ..hello("near", 1) };
    let near = core.join(0, hello, "grpc", 9).unwrap().session;
    core.start(0, near);
    core.holds(0, near, PATH, Some(0));
    assert_eq!(core.peers_of(1, 0), ["10.0.0.9:1", "relay:w3", "relay:w1"]);
    assert_eq!(seconds(&core), [1.0, 2.0]);
    // Where their own link was seen, that is what it costs.
    let seen = session::PeerLink { address: "relay:w2".into(), bytes_per_second: 4e9, ..Default::default() };
    core.telemetry(0, near, session::Telemetry { peers: vec![seen], ..Default::default() });
    assert_eq!(seconds(&core), [1.0, 0.25]);
    assert_eq!((core.relayed_link("w1"), core.relayed_link("near").is_err()), (Ok(1), true));
    // A worker that lost it is asked no more.
    core.holds(0, sessions[3], PATH, None);
    assert_eq!(core.peers_of(1, 0), ["10.0.0.9:1", "relay:w1"]);
}

#[test]
fn a_scheduler_that_relays_nothing_names_nobody_through_itself() {
    let (mut core, sessions) = behind_nats(&[1e9, 1e9], Limits { relay_bytes_per_second: 0, ..Limits::default() });
    core.holds(0, sessions[1], PATH, Some(0));
    assert_eq!(core.peers_of(1, 0), [] as [&str; 0]);
}

#[test]
fn a_part_of_a_model_is_priced_as_what_is_missing_and_who_had_nobody_to_ask_is_asked_again() {
    let (mut core, sessions) = behind_nats(&[1e9, 1e9, 1e9], Limits::default());
    core.take_commands();
    core.holds(0, sessions[0], PATH, Some(BYTES / 100));
    core.tick(MS);
    assert_eq!(pulls(&core.take_commands()).0, [] as [u64; 0], "all were asked");
    core.holds(2 * MS, sessions[2], PATH, Some(0));
    core.tick(30 * MS);
    let commands = core.take_commands();
    assert_eq!(pulls(&commands).0, [1], "it knew of nobody who has the model");
    let peers = commands.iter().find_map(|command| match command {
        Command::Pull { peers, fetch: false, .. } => Some(peers.clone()),
        _ => None,
    });
    assert_eq!(peers.unwrap(), ["relay:w2"]);
}
