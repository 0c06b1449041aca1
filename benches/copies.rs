//! How often a tensor is copied on its way: `cargo bench --bench copies`.
//!
//! This binary defines `memcpy` and `memmove` itself and counts the bytes of every copy of 2 KiB and more that the
//! server's code makes; what the kernel copies at the socket is not counted. The client is another process. One process
//! (`orion up`) takes the tensor in and sends it back: at most one copy each. A scheduler with a worker in another
//! process takes it in and sends it on twice, request and answer. Ends with status 1 when there are more.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod count {
    use std::sync::atomic::{AtomicU64, Ordering};

    static COPIED: AtomicU64 = AtomicU64::new(0);
    /// Headers and names are smaller, frames of tensors larger.
    const COUNTED: usize = 2048;

    /// Bytes copied so far.
    pub(super) fn copied() -> u64 {
        COPIED.load(Ordering::Relaxed)
    }

    fn add(bytes: usize) {
        if bytes >= COUNTED {
            COPIED.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The C library's, counted.
    ///
    /// # Safety
    /// As `memcpy`: both ranges are valid and do not overlap.
    #[unsafe(no_mangle)]
    pub(super) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
        add(bytes);
        // SAFETY: the caller's promise; the direction flag is clear by the ABI.
        unsafe {
            std::arch::asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        to
    }

    /// The C library's, counted.
    ///
    /// # Safety
    /// As `memmove`: both ranges are valid.
    #[unsafe(no_mangle)]
    pub(super) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= bytes {
            // SAFETY: copying forward overwrites nothing that is still to be read.
            return unsafe { memcpy(to, from, bytes) };
        }
        add(bytes);
        // SAFETY: the caller's promise; the direction flag is set for a backward copy and cleared again.
        unsafe {
            std::arch::asm!("std", "rep movsb", "cld", inout("rcx") bytes => _,
                inout("rdi") to.wrapping_add(bytes).wrapping_sub(1) => _,
                inout("rsi") from.wrapping_add(bytes).wrapping_sub(1) => _, options(nostack));
        }
        to
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("skipped: copies are counted on Linux x86-64 only");
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod run {
    use std::{
        io::{BufRead, BufReader, Write},
        path::Path,
        process::{Child, Command, ExitCode, Stdio},
        sync::Arc,
    };

    use orion_net::SchedulerLink;
    use orion_proto::inference::{
        ModelInferRequest, ModelReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    };
    use orion_scheduler::{
        core::Limits,
        repository::Repository,
        server::{Config, Server},
    };
    use orion_worker::{Options, Worker, WorkerHandle, session::JoinOptions};
    use tokio::sync::watch;

    use super::count::copied;

    const TENSOR: usize = 1 << 20;
    const WARM_UP: usize = 8;
    const REQUESTS: usize = 64;
    /// The role of a child process, and the address it speaks to.
    const ROLE: &str = "ORION_COPIES_ROLE";
    const ADDRESS: &str = "ORION_COPIES_ADDRESS";

    type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

    pub(super) fn main() -> ExitCode {
        let address = std::env::var(ADDRESS).unwrap_or_default();
        let ended = match std::env::var(ROLE).as_deref() {
            Ok("client") => client(&address).map(|()| true),
            Ok("worker") => worker(&address).map(|()| true),
            _ => table(),
        };
        match ended {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Prints copies per request beside the most that there may be; says whether none is above.
    fn table() -> Fallible<bool> {
        let runtime = tokio::runtime::Runtime::new()?;
        let folder = tempfile::tempdir()?;
        let rows = runtime.block_on(async {
            let one = one_process(folder.path()).await?;
            let (scheduler, worker) = two_processes().await?;
            Fallible::Ok([("orion up", one, 2.0), ("orion scheduler", scheduler, 4.0), ("orion worker", worker, 2.0)])
        })?;
        println!("copies of a {TENSOR}-byte tensor, per request (user space)");
        println!("{:18} {:>8} {:>8}", "process", "copies", "at most");
        for (process, copies, most) in rows {
            println!("{process:18} {copies:>8.3} {most:>8.1}");
        }
        // When a connection's buffer is renewed, what has come of the next frame moves to it: a few percent.
        Ok(rows.iter().all(|(_, copies, most)| *copies <= most * 1.05))
    }

    async fn one_process(folder: &Path) -> Fallible<f64> {
        let (server, addresses, _stop) = serve().await?;
        let worker = Worker::start(options("one", folder))?;
        let hello = worker.hello();
        let session = server.join_in_process(hello.clone(), Arc::new(WorkerHandle(worker.clone())))?;
        worker.attach(session.clone() as Arc<dyn SchedulerLink>, server.front().epoch(), &hello);
        session.start();
        load(&addresses.grpc.to_string()).await?;
        let before = copied();
        load(&addresses.grpc.to_string()).await?;
        Ok(per_request(copied() - before))
    }

    async fn two_processes() -> Fallible<(f64, f64)> {
        let (_server, addresses, _stop) = serve().await?;
        let mut worker =
            child("worker", &addresses.session.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        load(&addresses.grpc.to_string()).await?;
        let (before, worker_before) = (copied(), ask(&mut worker)?);
        load(&addresses.grpc.to_string()).await?;
        let counts = (per_request(copied() - before), per_request(ask(&mut worker)? - worker_before));
        worker.kill()?;
        worker.wait()?;
        Ok(counts)
    }

    fn per_request(bytes: u64) -> f64 {
        bytes as f64 / ((WARM_UP + REQUESTS) * TENSOR) as f64
    }

    /// The worker's own count.
    fn ask(worker: &mut Child) -> Fallible<u64> {
        worker.stdin.as_mut().ok_or("no pipe")?.write_all(b"\n")?;
        let mut line = String::new();
        // One line an answer: nothing is lost with the buffer.
        BufReader::new(worker.stdout.as_mut().ok_or("no pipe")?).read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    type Serving =
        (Arc<orion_scheduler::scheduler::Scheduler>, orion_scheduler::server::Addresses, watch::Sender<bool>);

    async fn serve() -> Fallible<Serving> {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            http: any,
            grpc: any,
            metrics: any,
            session: any,
            token: None,
            insecure: false,
            allowed_hosts: vec![],
            max_message_bytes: 64 << 20,
            limits: Limits::default(),
            repository: Repository::default(),
            data_folder: None,
            journal: None,
            advertise: None,
        };
        let server = Server::bind(config).await.map_err(|mistakes| mistakes.join(", "))?;
        let (scheduler, addresses) = (server.scheduler(), server.addresses());
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(server.serve(stopped));
        Ok((scheduler, addresses, stop))
    }

    fn options(name: &str, folder: &Path) -> Options {
        Options { name: name.into(), data_dir: folder.to_owned(), peer_address: String::new(), ..Options::default() }
    }

    fn child(role: &str, address: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap_or_default());
        command.env(ROLE, role).env(ADDRESS, address);
        command
    }

    /// Runs a client process to its end.
    async fn load(address: &str) -> Fallible<()> {
        let mut client = child("client", address).spawn()?;
        let ended = tokio::task::spawn_blocking(move || client.wait()).await??;
        if ended.success() { Ok(()) } else { Err("the client failed".into()) }
    }

    fn client(address: &str) -> Fallible<()> {
        tokio::runtime::Runtime::new()?.block_on(async {
            let client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await?;
            let mut client = client.max_decoding_message_size(2 * TENSOR);
            let ready = ModelReadyRequest { name: "identity".into(), ..Default::default() };
            while !client.model_ready(ready.clone()).await?.into_inner().ready {
                tokio::task::yield_now().await;
            }
            let input = InferInputTensor {
                name: "INPUT0".into(),
                datatype: "FP32".into(),
                shape: vec![1, (TENSOR / 4) as i64],
                ..Default::default()
            };
            let request = ModelInferRequest {
                model_name: "identity".into(),
                inputs: vec![input],
                raw_input_contents: vec![vec![7; TENSOR].into()],
                ..Default::default()
            };
            for _ in 0..WARM_UP + REQUESTS {
                let answer = client.model_infer(request.clone()).await?.into_inner();
                assert_eq!(answer.raw_output_contents[0].len(), TENSOR);
            }
            Ok(())
        })
    }

    fn worker(address: &str) -> Fallible<()> {
        std::thread::spawn(|| {
            for _ in std::io::stdin().lines() {
                println!("{}", copied());
            }
        });
        let folder = tempfile::tempdir()?;
        let worker = Worker::start(options("two", folder.path()))?;
        let join = JoinOptions { addresses: vec![address.into()], token: None, max_batch_bytes: 1 << 30 };
        let (_stop, stopped) = watch::channel(false);
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(orion_worker::session::run(worker, join, stopped));
        Ok(())
    }
}
