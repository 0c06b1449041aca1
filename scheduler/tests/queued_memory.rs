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
    Datatype, Delta, Generation, GeneratorSpec, InferRequest, ModelName, ModelPolicy, ModelSpec, Parameters, Payload,
    Prompt, ServiceCurve, Tensor, TensorSpec, session,
};
use orion_scheduler::core::{Admitted, Core, IN_PROCESS, Limits, Listener, ModelState, Opening, Prefix, Report};

/// Requests that wait.
const REQUESTS: usize = 10_000;
/// Bytes that each may take.
const MOST: isize = 2048;
/// Bytes of its tensor.
const TENSOR: usize = 64;
/// Bytes of a prompt, of which 29 beginnings are hashed; and those of the hashes that one of any length has more.
const PROMPT: usize = 12 * 1024;
const HASHES: isize = (64 - 29) * 8;
/// Requests that run at once, at most.
const MOST_RUNNING: usize = 4;

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

fn generator() -> GeneratorSpec {
    GeneratorSpec { context_tokens: 4096, max_sequences: MOST_RUNNING as u32, cache_tokens: 1 << 16, chat: true }
}

fn core(generator: Option<GeneratorSpec>) -> Core<u64, u32> {
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
        spec: Some(ModelSpec { generator, ..spec() }),
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

/// A generation with a long prompt, whose text counts as its tensors.
fn generation(number: usize, prompt: &str) -> InferRequest {
    let prompt = Prompt::Text(prompt.to_owned());
    InferRequest { generation: Some(Generation::new(prompt)), inputs: Vec::new(), ..request(number) }
}

#[derive(Debug)]
struct Nobody;

impl Listener for Nobody {
    fn tell(&self, _: Delta) {}
}

/// Bytes that each of many takes beside its tensors while it waits.
fn each(core: &mut Core<u64, u32>, tensors: usize, mut admitted: impl FnMut(usize) -> Admitted) -> isize {
    let mut submit = |number: usize| {
        core.submit(1, admitted(number), number as u64).unwrap();
    };
    // The first run, and lists that grow with the number of requests are as long as they get.
    (0..=MOST_RUNNING).for_each(&mut submit);
    let before = HELD.load(Ordering::Relaxed);
    (1..=REQUESTS).for_each(&mut submit);
    let each = (HELD.load(Ordering::Relaxed) - before) / REQUESTS as isize - tensors as isize;
    assert!(core.totals().queued >= REQUESTS as u64);
    println!("{each} bytes a request");
    each
}

#[test]
fn a_request_that_waits_takes_at_most_two_kibibytes_beside_its_tensors() {
    let spec = Arc::new(spec());
    let bytes = each(&mut core(None), TENSOR, |number| Admitted {
        spec: spec.clone(),
        request: Arc::new(request(number)),
        rows: 1,
        bytes: TENSOR,
        deadline: None,
        generation: None,
    });
    assert!((100..=MOST).contains(&bytes), "{bytes} bytes a request");
    let prompt = "words ".repeat(PROMPT / 6);
    let listener: Arc<dyn Listener> = Arc::new(Nobody);
    let bytes = each(&mut core(Some(generator())), prompt.len(), |number| {
        let request = generation(number, &prompt);
        let prefix = Prefix::new(1, &request.generation.as_ref().unwrap().prompt);
        Admitted {
            spec: spec.clone(),
            request: Arc::new(request),
            rows: 1,
            bytes: prompt.len(),
            deadline: None,
            generation: Some(Opening { listener: listener.clone(), prefix }),
        }
    });
    assert!((100..=MOST - HASHES).contains(&bytes), "{bytes} bytes a generation");
}
