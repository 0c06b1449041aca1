//! Replays traces: simulation a|b FILE... [noise]
use orion_scheduler::simulate::{ManyModels, UnequalReplicas, scale::Scale};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let noise: f64 = std::env::var("NOISE").ok().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    if args[0] == "scale" {
        let n = |i: usize| args[i].parse::<usize>().unwrap();
        let r = Scale { models: n(1), workers: n(2), devices: n(3), load: 0.8, requests: n(4), seed: 1 }.run().unwrap();
        println!("{}", serde_json::to_string(&r).unwrap());
        return;
    }
    for file in &args[1..] {
        let json = std::fs::read(file).unwrap();
        let t = std::time::Instant::now();
        let report = match args[0].as_str() {
            "a" => ManyModels::parse(&json).unwrap().run(noise).unwrap(),
            _ => UnequalReplicas::parse(&json).unwrap().run().unwrap(),
        };
        println!("{} {:.1}s", serde_json::to_string(&report).unwrap(), t.elapsed().as_secs_f64());
    }
}
