//! Flags of the serving commands; each has an `ORION_*` twin in the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::{origins::OriginFlags, peer::Publishers, store::StoreFlags};

/// Runs a scheduler and a worker for this machine in one process
#[derive(Args)]
#[command(after_help = "\
Examples:
  orion up
  orion up --model minilm=models/minilm
  orion up --model-repository models --http 127.0.0.1:9000")]
pub(crate) struct UpArguments {
    #[command(flatten)]
    pub(super) scheduler: SchedulerFlags,
    /// Name of this machine's worker
    #[arg(long, env = "ORION_NAME", default_value = "local")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) node: NodeFlags,
    #[command(flatten)]
    pub(super) common: CommonFlags,
}

/// Runs a scheduler that workers join
#[derive(Args)]
#[command(after_help = "\
Examples:
  orion scheduler --model minilm=models/minilm
  orion scheduler --session 0.0.0.0:8003 --token-file token")]
pub(crate) struct SchedulerArguments {
    #[command(flatten)]
    pub(super) scheduler: SchedulerFlags,
    #[command(flatten)]
    pub(super) common: CommonFlags,
}

/// Runs a worker that joins a scheduler
#[derive(Args)]
#[command(after_help = "\
Examples:
  orion worker --join 127.0.0.1:8003 --name gpu1
  orion worker --join 10.0.0.5:8003,10.0.0.6:8003 --name edge7 --token-file token
  orion worker --join 127.0.0.1:8003 --name gpu2 --zone eu-1 --label rack=a1 --label tier=gold
  orion worker --join 10.0.0.5:8003 --name gpu3 --peer 10.0.0.7:8004 --token-file token
  orion worker --join 127.0.0.1:8003 --name sim --simulate devices.toml")]
pub(crate) struct WorkerArguments {
    /// Session addresses of the schedulers, tried in turn
    #[arg(long, env = "ORION_JOIN", value_name = "ADDR[,ADDR…]", value_delimiter = ',', required = true)]
    pub(super) join: Vec<String>,
    /// Name of this worker, unique among the scheduler's workers
    #[arg(long, env = "ORION_NAME", value_name = "NAME")]
    pub(super) name: String,
    /// File that holds the bearer token of the scheduler and of other workers
    #[arg(long, env = "ORION_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Lets other machines fetch models without a token
    #[arg(long, env = "ORION_INSECURE")]
    pub(super) insecure: bool,
    #[command(flatten)]
    pub(super) node: NodeFlags,
    #[command(flatten)]
    pub(super) common: CommonFlags,
}

/// What a worker says of itself beside what it finds.
#[derive(Args)]
pub(super) struct NodeFlags {
    /// A label that models may ask for; may be given again
    #[arg(long, env = "ORION_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(super) label: Vec<String>,
    /// Where this machine stands; models may ask for it
    #[arg(long, env = "ORION_ZONE", value_name = "NAME")]
    pub(super) zone: Option<String>,
    /// What this machine is for; models run on compute and hybrid unless they name others
    #[arg(long, env = "ORION_ROLE", value_name = "ROLE", default_value = "compute")]
    pub(super) role: Role,
    /// File of devices that are emulated in place of this machine's own; docs/simulate.md lists its keys
    #[arg(long, env = "ORION_SIMULATE", value_name = "FILE")]
    pub(super) simulate: Option<PathBuf>,
    /// Address under which other workers reach this one, to fetch models from it
    #[arg(long, env = "ORION_PEER", value_name = "ADDR")]
    pub(super) peer: Option<SocketAddr>,
    /// Folder of what models are trained on here; a plan names what is in it
    #[arg(long, env = "ORION_DATASETS", value_name = "DIR")]
    pub(super) datasets: Option<PathBuf>,
    /// Nodes and buckets that have models, tried beside the workers that the scheduler names
    #[arg(long, env = "ORION_FROM", value_name = "ADDR|URL[,…]", value_delimiter = ',')]
    pub(super) from: Vec<String>,
    #[command(flatten)]
    pub(super) origins: OriginFlags,
    #[command(flatten)]
    pub(super) publishers: Publishers,
    #[command(flatten)]
    pub(super) store: StoreFlags,
}

#[derive(Args)]
pub(super) struct CommonFlags {
    /// Folder for what is kept between runs; the user's data folder if not given
    #[arg(long, env = "ORION_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// How log lines look
    #[arg(long, env = "ORION_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    pub(super) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or `tracing` directives
    #[arg(long, env = "ORION_LOG", value_name = "LEVEL", default_value = "info")]
    pub(super) log: String,
}

#[derive(Args)]
pub(super) struct SchedulerFlags {
    /// A model and where it lies; may be given again
    #[arg(long, env = "ORION_MODEL", value_name = "NAME=PATH")]
    pub(super) model: Vec<String>,
    /// A folder whose entries are models
    #[arg(long, env = "ORION_MODEL_REPOSITORY", value_name = "DIR")]
    pub(super) model_repository: Option<PathBuf>,
    /// HTTP: Open Inference Protocol and OpenAI; port 0: the system picks
    #[arg(long, env = "ORION_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub(super) http: SocketAddr,
    /// gRPC: Open Inference Protocol
    #[arg(long, env = "ORION_GRPC", value_name = "ADDR", default_value = "127.0.0.1:8001")]
    pub(super) grpc: SocketAddr,
    /// Prometheus metrics
    #[arg(long, env = "ORION_METRICS", value_name = "ADDR", default_value = "127.0.0.1:8002")]
    pub(super) metrics: SocketAddr,
    /// Workers join here
    #[arg(long, env = "ORION_SESSION", value_name = "ADDR", default_value = "127.0.0.1:8003")]
    pub(super) session: SocketAddr,
    /// File that holds the bearer token that clients and workers must send
    #[arg(long, env = "ORION_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Lets other machines in without a token
    #[arg(long, env = "ORION_INSECURE")]
    pub(super) insecure: bool,
    /// A name under which HTTP clients may address this server; may be given again
    #[arg(long, env = "ORION_ALLOWED_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(super) allowed_host: Vec<String>,
    /// Largest message, tensors included, in MiB
    #[arg(long, env = "ORION_MAX_MESSAGE_MB", value_name = "MIB", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) max_message_mb: u32,
    /// Requests that may wait or run at once
    #[arg(long, env = "ORION_MAX_REQUESTS", value_name = "COUNT", default_value_t = 16384,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_requests: u32,
    /// Megabytes a second of models that pass between workers that cannot reach each other; 0: none
    #[arg(long, env = "ORION_RELAY_MB_PER_SECOND", value_name = "MB", default_value_t = 64)]
    pub(super) relay_mb_per_second: u32,
    /// The journal of jobs that several schedulers share, postgres://…; jobs.redb in the data folder if not given
    #[arg(long, env = "ORION_JOURNAL", value_name = "URL", hide_env_values = true)]
    pub(super) journal: Option<String>,
    /// Where the other schedulers of that journal reach this one's gRPC; where it listens if not given
    #[arg(long, env = "ORION_ADVERTISE", value_name = "HOST:PORT")]
    pub(super) advertise: Option<String>,
}

/// What a machine is for.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// Runs models
    Compute,
    /// Keeps files
    Storage,
    /// Stands between others
    Gateway,
    /// Brings data in
    Sensor,
    /// Runs models among other things
    Hybrid,
}

impl Role {
    /// As it stands on the wire and in `orion.toml`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Storage => "storage",
            Self::Gateway => "gateway",
            Self::Sensor => "sensor",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    /// One line an event
    Pretty,
    /// One JSON object a line
    Json,
    /// One line an event, its fields as branches below
    Tree,
}
