//! What a plan may say.

use std::collections::BTreeSet;

use super::{Architecture, Data, Federated, LanguageModel, Lora, Numbers, Optimizer, Plan, TextClassifier};
use crate::{Error, ModelName, Result};

const MOST_LAYERS: usize = 64;
const MOST_WIDTH: usize = 1 << 16;
const MOST_BATCH: usize = 1 << 20;
const MOST_MICRO_BATCHES: usize = 4096;
const MOST_STEPS: u64 = 1 << 40;
const MOST_WORKERS: usize = 1024;
/// Steps of a round.
const MOST_ALONE: u64 = 1 << 20;
/// Of a length, and of noise in lengths.
const MOST_LENGTH: f32 = 1e9;
const MOST_KERNEL: usize = 15;
const MOST_TOKENS: usize = 1 << 16;
const MOST_RANK: usize = 1 << 12;
/// Bytes of a path: it travels in a control message.
const PATH_BYTES: usize = 1024;

impl Plan {
    /// Refuses what cannot be meant, all of it at once.
    pub(super) fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        if let Err(error) = ModelName::new(&self.name) {
            wrong.push(format!("name: {}", error.message));
        }
        if self.name == "identity" {
            wrong.push("name 'identity' is built in, give the model another".into());
        }
        self.check_model(&mut wrong);
        self.check_data(&mut wrong);
        self.check_labels(&mut wrong);
        self.check_optimizer(&mut wrong);
        self.check_steps(&mut wrong);
        self.check_workers(&mut wrong);
        self.check_rounds(&mut wrong);
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("the plan of the training: {}", wrong.join("; "))))
    }

    fn check_model(&self, wrong: &mut Vec<String>) {
        let (hidden, dropout) = match &self.model {
            Architecture::Mlp(mlp) => (&mlp.hidden, mlp.dropout),
            Architecture::Cnn(cnn) => {
                check_convolutions(&cnn.channels, cnn.kernel, wrong);
                (&cnn.hidden, cnn.dropout)
            }
            Architecture::ImageQuestion(network) => {
                check_convolutions(&network.channels, network.kernel, wrong);
                widths("model.hidden", &[network.hidden], wrong);
                (&Vec::new(), network.dropout)
            }
            Architecture::TextClassifier(TextClassifier { base, tokens, dropout, lora }) => {
                check_base(base, *tokens, lora.as_ref(), wrong);
                (&Vec::new(), *dropout)
            }
            Architecture::LanguageModel(LanguageModel { base, tokens, lora }) => {
                check_base(base, *tokens, lora.as_ref(), wrong);
                (&Vec::new(), 0.0)
            }
        };
        widths("model.hidden", hidden, wrong);
        if !(0.0..1.0).contains(&dropout) {
            wrong.push(format!("model.dropout is {dropout}, it must be from 0 to below 1"));
        }
    }

    fn check_data(&self, wrong: &mut Vec<String>) {
        if self.data.train.is_empty() {
            wrong.push(
                "data.train is empty, it must be a name in the workers' --datasets folder, or store:NAME@VERSION"
                    .into(),
            );
        }
        if self.data.classes > MOST_WIDTH {
            wrong.push(format!("data.classes is {}, {MOST_WIDTH} are at most", self.data.classes));
        }
        let base = self.base().unwrap_or_default();
        let paths = [("data.train", self.data.train.as_str()), ("data.test", &self.data.test), ("model.base", base)];
        for (name, path) in paths {
            if path.len() > PATH_BYTES {
                wrong.push(format!("{name} has {} bytes, {PATH_BYTES} are at most", path.len()));
            }
        }
    }

    fn check_labels(&self, wrong: &mut Vec<String>) {
        let Data { labels, classes, .. } = &self.data;
        if labels.len() == 1 || labels.len() > MOST_WIDTH || labels.iter().map(String::len).sum::<usize>() > PATH_BYTES
        {
            let text = format!("data.labels must be two names or more, of {PATH_BYTES} bytes in all");
            wrong.push(text);
        }
        let distinct: BTreeSet<&String> = labels.iter().collect();
        if distinct.len() < labels.len() {
            wrong.push("data.labels names one class twice".into());
        }
        let named = matches!(self.model, Architecture::TextClassifier(_) | Architecture::ImageQuestion(_));
        let of_images = matches!(self.model, Architecture::Mlp(_) | Architecture::Cnn(_));
        if !labels.is_empty() && !named {
            wrong.push("data.labels is of classes with names, with images alone give data.classes".into());
        }
        if !of_images && *classes > 0 {
            wrong.push("data.classes is of images alone, classes with names have data.labels".into());
        }
    }

    fn check_optimizer(&self, wrong: &mut Vec<String>) {
        let rate = self.optimizer.learning_rate();
        if !(rate.is_finite() && rate > 0.0) {
            wrong.push(format!("optimizer.learning_rate is {rate}, it must be above 0"));
        }
        let mut share = |name: &str, value: f32| {
            if !(0.0..1.0).contains(&value) {
                wrong.push(format!("optimizer.{name} is {value}, it must be from 0 to below 1"));
            }
        };
        match &self.optimizer {
            Optimizer::Sgd { momentum, weight_decay, .. } => {
                share("momentum", *momentum);
                share("weight_decay", *weight_decay);
            }
            Optimizer::Adamw { betas, epsilon, weight_decay, .. } => {
                share("betas[0]", betas[0]);
                share("betas[1]", betas[1]);
                share("weight_decay", *weight_decay);
                if !(epsilon.is_finite() && *epsilon > 0.0) {
                    wrong.push(format!("optimizer.epsilon is {epsilon}, it must be above 0"));
                }
            }
        }
        if matches!(self.optimizer, Optimizer::Sgd { nesterov: true, momentum: 0.0, .. }) {
            wrong.push("optimizer.nesterov needs optimizer.momentum above 0".into());
        }
        if !(0.0..=1.0).contains(&self.schedule.least) {
            wrong.push(format!("schedule.least is {}, it must be from 0 to 1", self.schedule.least));
        }
    }

    fn check_steps(&self, wrong: &mut Vec<String>) {
        let training = &self.training;
        if training.steps == 0 && training.epochs == 0 {
            wrong.push("training.epochs or training.steps must be above 0".into());
        }
        if training.steps > 0 && training.epochs > 0 {
            wrong.push("training.epochs and training.steps are both given, one of them says how long it takes".into());
        }
        if training.steps.max(training.epochs) > MOST_STEPS {
            wrong.push(format!("training.steps and training.epochs are at most {MOST_STEPS}"));
        }
        if !(1..=MOST_BATCH).contains(&training.batch) {
            wrong.push(format!("training.batch is {}, it must be from 1 to {MOST_BATCH}", training.batch));
        } else if training.micro_batch > training.batch {
            let (micro, batch) = (training.micro_batch, training.batch);
            wrong.push(format!("training.micro_batch is {micro}, it is part of a batch of {batch}"));
        } else if self.micro_batches() > MOST_MICRO_BATCHES {
            let count = self.micro_batches();
            wrong.push(format!("a batch has {count} micro-batches, {MOST_MICRO_BATCHES} are at most"));
        }
        if !(training.clip_norm.is_finite() && training.clip_norm >= 0.0) {
            wrong.push(format!("training.clip_norm is {}, it must be 0 or more", training.clip_norm));
        }
    }

    fn check_workers(&self, wrong: &mut Vec<String>) {
        let workers = &self.workers;
        if workers.least == 0 || workers.least > MOST_WORKERS || workers.most > MOST_WORKERS {
            wrong.push(format!("workers.least must be from 1 to {MOST_WORKERS}, workers.most at most {MOST_WORKERS}"));
        }
        if workers.most > 0 && workers.most < workers.least {
            wrong.push(format!("workers.most is {}, below workers.least, {}", workers.most, workers.least));
        }
    }

    fn check_rounds(&self, wrong: &mut Vec<String>) {
        if self.local.is_some() && self.federated.is_some() {
            wrong.push("local and federated are both given, a training is of one kind".into());
        }
        let rounds = |of: &str, steps: u64, rate: f32, momentum: f32, wrong: &mut Vec<String>| {
            if !(1..=MOST_ALONE).contains(&steps) {
                wrong.push(format!("{of}steps is {steps}, it must be from 1 to {MOST_ALONE}"));
            }
            let table = of.split('.').next().unwrap_or_default();
            if !(rate.is_finite() && rate > 0.0) {
                wrong.push(format!("{table}.learning_rate is {rate}, it must be above 0"));
            }
            if !(0.0..1.0).contains(&momentum) {
                wrong.push(format!("{table}.momentum is {momentum}, it must be from 0 to below 1"));
            }
        };
        if let Some(local) = &self.local {
            rounds("local.", local.steps, local.learning_rate, local.momentum, wrong);
            if local.replicas > MOST_WORKERS {
                wrong.push(format!("local.replicas is {}, {MOST_WORKERS} are at most", local.replicas));
            }
        }
        if let Some(federated) = &self.federated {
            rounds("federated.local_", federated.local_steps, federated.learning_rate, federated.momentum, wrong);
            self.check_federated(federated, wrong);
        }
    }

    fn check_federated(&self, federated: &Federated, wrong: &mut Vec<String>) {
        let Federated { clip_norm, noise, delta, .. } = *federated;
        if !(clip_norm > 0.0 && clip_norm <= MOST_LENGTH) {
            wrong.push(format!("federated.clip_norm is {clip_norm}, it must be above 0 and at most {MOST_LENGTH}"));
        }
        if !(0.0..=MOST_LENGTH).contains(&noise) {
            wrong.push(format!("federated.noise is {noise}, it must be from 0 to {MOST_LENGTH}"));
        }
        if noise > 0.0 && self.training.patience > 0 {
            let text = "training.patience chooses weights by test examples, which federated.noise does not cover";
            wrong.push(text.into());
        }
        if noise > 0.0 && self.training.exchange == Numbers::Bf16 {
            let text =
                "training.exchange must be f32 with federated.noise, whose epsilon is of sums that are not rounded";
            wrong.push(text.into());
        }
        if !(delta > 0.0 && delta < 1.0) {
            wrong.push(format!("federated.delta is {delta}, it must be between 0 and 1"));
        }
        if matches!(self.model, Architecture::ImageQuestion(_)) {
            wrong
                .push("an image_question has the words and colours of all its examples, it cannot be federated".into());
        }
        if self.training.epochs > 0 {
            let text = "training.epochs has no meaning with federated, where each worker has as many examples as it has: \
                        give training.steps";
            wrong.push(text.into());
        }
        for (name, path) in [("data.train", &self.data.train), ("data.test", &self.data.test)] {
            if path.contains(':') {
                let text =
                    format!("{name} is '{path}', with federated it must be a name in each worker's --datasets folder");
                wrong.push(text);
            }
        }
        let (known, field) = match self.model {
            Architecture::LanguageModel(_) => (true, "labels"),
            Architecture::TextClassifier(_) | Architecture::ImageQuestion(_) => {
                (!self.data.labels.is_empty(), "labels")
            }
            Architecture::Mlp(_) | Architecture::Cnn(_) => (self.data.classes > 0, "classes"),
        };
        if !known {
            wrong.push(format!("data.{field} must be given with federated: no worker may have examples of all"));
        }
    }
}

fn check_convolutions(channels: &[usize], kernel: usize, wrong: &mut Vec<String>) {
    widths("model.channels", channels, wrong);
    if channels.is_empty() {
        wrong.push("model.channels is empty, a network without convolutions is kind = \"mlp\"".into());
    }
    if kernel.is_multiple_of(2) || kernel > MOST_KERNEL {
        wrong.push(format!("model.kernel is {kernel}, it must be odd and at most {MOST_KERNEL}"));
    }
}

fn check_base(base: &str, tokens: usize, lora: Option<&Lora>, wrong: &mut Vec<String>) {
    if base.is_empty() {
        let text = "model.base is empty, it must be a name in the workers' --datasets folder, or store:NAME@VERSION";
        wrong.push(text.into());
    }
    if !(2..=MOST_TOKENS).contains(&tokens) {
        wrong.push(format!("model.tokens is {tokens}, it must be from 2 to {MOST_TOKENS}"));
    }
    let Some(lora) = lora else { return };
    if !(1..=MOST_RANK).contains(&lora.rank) {
        wrong.push(format!("model.lora.rank is {}, it must be from 1 to {MOST_RANK}", lora.rank));
    }
    if !(lora.alpha > 0.0 && lora.alpha <= MOST_LENGTH) {
        wrong.push(format!("model.lora.alpha is {}, it must be above 0 and at most {MOST_LENGTH}", lora.alpha));
    }
    let distinct: BTreeSet<&String> = lora.targets.iter().collect();
    if distinct.len() < lora.targets.len() || lora.targets.len() > MOST_LAYERS {
        wrong.push(format!("model.lora.targets must name each layer once, at most {MOST_LAYERS}"));
    }
}

fn widths(name: &str, widths: &[usize], wrong: &mut Vec<String>) {
    if widths.len() > MOST_LAYERS {
        wrong.push(format!("{name} has {} layers, {MOST_LAYERS} are at most", widths.len()));
    }
    if let Some(width) = widths.iter().find(|width| !(1..=MOST_WIDTH).contains(*width)) {
        wrong.push(format!("{name} has a layer of {width}, it must be from 1 to {MOST_WIDTH}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Plan;

    const LEAST: &str =
        r#"{"name": "m", "model": {"kind": "mlp", "hidden": [4]}, "data": {"train": "d"}, "training": {"epochs": 1}}"#;

    #[test]
    fn a_plan_is_read_and_written() {
        let plan = Plan::from_json(LEAST).unwrap();
        assert_eq!((plan.micro_batch(), plan.micro_batches(), plan.steps(1280)), (16, 8, 10));
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |from: &str, to: &str| {
            assert!(LEAST.contains(from));
            Plan::from_json(&LEAST.replace(from, to)).unwrap_err().message
        };
        let typed = refused("\"hidden\": [4]", "\"hidden\": 4");
        assert!(typed.contains("model") && typed.contains("sequence"), "{typed}");
        let unknown = refused("\"epochs\"", "\"epoch\"");
        assert!(unknown.contains("training") && unknown.contains("epoch"), "{unknown}");
        let kind = refused("\"mlp\"", "\"rnn\"");
        assert!(kind.contains("rnn") && kind.contains("mlp"), "{kind}");
        let many = refused(
            "\"training\": {\"epochs\": 1}",
            r#""training": {"batch": 0}, "optimizer": {"kind": "sgd", "learning_rate": -1, "nesterov": true}, "workers": {"least": 3, "most": 2}"#,
        );
        for part in ["training.epochs", "training.batch", "learning_rate", "nesterov", "workers.most is 2"] {
            assert!(many.contains(part), "{part}: {many}");
        }
        assert!(refused("\"m\"", "\"a/b\"").contains("a/b"));
        let rounds = |more: &str| refused("\"training\": {\"epochs\": 1}", more);
        let both = rounds(
            r#""training": {"epochs": 1}, "local": {"steps": 0, "momentum": 1},
            "federated": {"local_steps": 2, "noise": -1, "delta": 0, "clip_norm": 0}"#,
        );
        for part in
            ["both given", "local.steps is 0", "local.momentum is 1", "noise is -1", "delta is 0", "clip_norm is 0"]
        {
            assert!(both.contains(part), "{part}: {both}");
        }
        assert!(
            both.contains("training.epochs has no meaning") && both.contains("data.classes must be given"),
            "{both}"
        );
        assert!(refused("\"m\"", "\"identity\"").contains("built in"));
    }
}
