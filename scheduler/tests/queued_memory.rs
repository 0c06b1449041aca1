//! A request that waits takes little memory beside its tensors.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering},
    },
};

use orion_proto::{
    Datatype, InferRequest, ModelName, ModelPolicy, ModelSpec, Parameters, Payload, ServiceCurve, Tensor, TensorSpec,
    session,
};
use orion_scheduler::core::{Admitted, Core, IN_PROCESS, Limits, ModelState, Report};

/// Requests that wait.
const REQUESTS: usize = 10_000;
/// Bytes that each may take.
const MOST: isize = 2048;
/// Bytes of its tensor.
const TENSOR: usize = 64;

struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn spec() -> ModelSpec {
    ModelSpec {
        name: ModelName::new("sentences").unwrap(),
        version: "1".into(),
        family: "simulated".into(),
        inputs: vec![TensorSpec::new("text", Datatype::Fp32, [-1])],
        outputs: Vec::new(),
        max_batch_rows: 8,
        memory_bytes: 1,
        inline: false,
        policy: ModelPolicy { max_queue: std::time::Duration::from_secs(86_400), ..ModelPolicy::default() },
        generator: None,
    }
}

fn core() -> Core<u64, u32> {
    let limits = Limits { requests: 2 * REQUESTS, ..Limits::default() };
    let mut core = Core::new(1, limits);
    core.want(0, &ModelName::new("sentences").unwrap(), "/models/sentences".into(), false);
    let device = session::Device { name: "cpu0".into(), kind: "cpu".into(), usable: true, ..Default::default() };
    let capability = session::Capability { devices: vec![device], ..Default::default() };
    let hello = session::Hello { name: "w".into(), incarnation: 1, capability: Some(capability), ..Default::default() };
    let joined = core.join(0, hello, IN_PROCESS, 0).unwrap();
    core.start(0, joined.session);
    let report = |state, order| Report {
        name: "sentences".into(),
        device: "cpu0".into(),
        state,
        error: String::new(),
        progress: 1.0,
        spec: Some(spec()),
        curve: ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.001 },
        order,
        load_seconds: 0.1,
        peak_bytes: 0,
    };
    core.report(0, joined.session, report(ModelState::Cold, 1));
    let order = core.take_commands().into_iter().find_map(|command| match command {
        orion_scheduler::core::Command::Load { order, .. } => Some(order),
        _ => None,
    });
    core.report(0, joined.session, report(ModelState::Ready, order.unwrap()));
    core
}

/// As an API shell makes it, strings and all.
fn request(number: usize) -> InferRequest {
    let data = Payload::from(vec![0u8; TENSOR]);
    InferRequest {
        model: "sentences".into(),
        id: format!("client-7/request-{number:012}"),
        inputs: vec![Tensor { name: "text".into(), datatype: Datatype::Fp32, shape: vec![(TENSOR / 4) as i64], data }],
        outputs: vec!["embedding".into()],
        parameters: Parameters { tenant: Some("team-a".into()), routing_key: Some(7), ..Parameters::default() },
        ..InferRequest::default()
    }
}

#[test]
fn a_request_that_waits_takes_at_most_two_kibibytes_beside_its_tensors() {
    let mut core = core();
    let spec = Arc::new(spec());
    let mut submit = |number: usize| {
        let admitted = Admitted {
            spec: spec.clone(),
            request: Arc::new(request(number)),
            rows: 1,
            bytes: TENSOR,
            deadline: None,
            listener: None,
        };
        core.submit(1, admitted, number as u64).unwrap();
    };
    submit(0);
    let before = HELD.load(Ordering::Relaxed);
    (1..=REQUESTS).for_each(&mut submit);
    let each = (HELD.load(Ordering::Relaxed) - before) / REQUESTS as isize - TENSOR as isize;
    assert!(core.totals().queued >= REQUESTS as u64);
    println!("{each} bytes a request");
    assert!((100..=MOST).contains(&each), "{each} bytes a request");
}
