//! Draws what a training loop does, and stops it on Ctrl-C or a request to end (SIGTERM) after it has saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use ocelli_data::record::Record;
use ocelli_train::observe::{Go, Observer, Progress};

use crate::ui::Ui;

/// Exit code after Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// A flag that the first Ctrl-C or SIGTERM raises; the second ends the process at once.
pub(crate) fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut asked) = Asked::new() else { return };
            if !asked.wait().await {
                return;
            }
            seen.store(true, Ordering::Relaxed);
            if asked.wait().await {
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
    });
    stop
}

/// The signals that ask a process to end. Schedulers and service managers send SIGTERM.
struct Asked {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Asked {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    /// Waits for the next of them; false where none can be waited for.
    async fn wait(&mut self) -> bool {
        #[cfg(unix)]
        return tokio::select! {
            found = tokio::signal::ctrl_c() => found.is_ok(),
            found = self.terminate.recv() => found.is_some(),
        };
        #[cfg(not(unix))]
        return tokio::signal::ctrl_c().await.is_ok();
    }
}

/// Draws what a run does.
pub(crate) struct Watch<'u> {
    ui: &'u Ui,
    /// Raised when the run should save and stop.
    stop: Arc<AtomicBool>,
    bar: Option<ProgressBar>,
}

/// Largest resident memory of this process so far in MiB, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

impl<'u> Watch<'u> {
    /// Draws on `ui`; the loop saves and ends once `stop` is raised.
    pub(crate) fn new(ui: &'u Ui, stop: Arc<AtomicBool>) -> Self {
        Self { ui, stop, bar: None }
    }

    /// The terminal.
    pub(crate) fn ui(&self) -> &'u Ui {
        self.ui
    }

    /// True once the process was asked to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Removes the bar.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.ui.note(text)),
            None => self.ui.note(text),
        }
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, p: &Progress<'_>) -> Go {
        let bar = self.bar.get_or_insert_with(|| self.ui.progress(p.total, p.stage));
        let value = |name: &str| p.metrics.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let mut parts = Vec::new();
        for (name, short) in [("loss", "loss"), ("reward", "reward"), ("accuracy", "acc")] {
            parts.extend(value(name).map(|v| format!("{short} {v:.4}")));
        }
        parts.push(format!("{:.0} tok/s", p.tokens as f64 / p.seconds.max(1e-9)));
        parts.extend(peak_memory().map(|m| format!("{m} MiB")));
        bar.set_position(p.step);
        bar.set_message(parts.join("  "));
        if self.stopped() { Go::Stop } else { Go::On }
    }

    fn alarm(&mut self, alarm: &Record) {
        if let Record::Alarm { step, message, .. } = alarm {
            self.say(&format!("alarm at step {step}: {message}"));
        }
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }
}
