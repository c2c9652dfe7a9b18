//! Devices, and the pool every large buffer comes from and goes back to.
//!
//! A training step of a fixed shape allocates the same buffers again and again. Asking the operating system each time
//! costs a page fault per 4 KiB (measured: a quarter of the time of a small step), so a dropped buffer waits here for the next
//! request of about its size. The pool never holds more than the largest amount that was ever in use at once, plus an eighth.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where a tensor lives. Only the CPU exists today; operations match on this enum, so that another device is a new arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// Host memory, all cores of the `rayon` pool in use.
    #[default]
    Cpu,
}

/// What a device's pool holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// In tensors that are alive.
    pub live: usize,
    /// Waiting for reuse.
    pub idle: usize,
    /// The most that was ever alive at once.
    pub peak_live: usize,
    /// How many buffers were requested from the operating system so far.
    pub allocations: u64,
}

impl Device {
    /// Current state of this device's pool.
    pub fn pool_stats(self) -> PoolStats {
        lock(pool()).stats
    }

    /// Gives all idle buffers back to the operating system and starts a new peak.
    pub fn trim_pool(self) {
        let mut p = lock(pool());
        p.idle.clear();
        p.stats.idle = 0;
        p.stats.peak_live = p.stats.live;
    }
}

/// 64 bytes, aligned for the widest vector loads.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; 16]);

const LINE: usize = size_of::<Line>();

/// An owned piece of device memory; returns to its pool when dropped.
pub(crate) struct Buffer {
    lines: Box<[Line]>,
}

#[derive(Default)]
struct Pool {
    /// Idle buffers by their size in lines.
    idle: BTreeMap<usize, Vec<Box<[Line]>>>,
    stats: PoolStats,
}

fn pool() -> &'static Mutex<Pool> {
    static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
    POOL.get_or_init(Mutex::default)
}

fn lock(m: &'static Mutex<Pool>) -> MutexGuard<'static, Pool> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The smallest idle buffer that is at most a quarter larger than asked for.
    fn take(&mut self, lines: usize) -> Option<Box<[Line]>> {
        let limit = lines + lines / 4 + 16;
        let (&size, stack) = self.idle.range_mut(lines..=limit).next()?;
        let found = stack.pop();
        if stack.is_empty() {
            self.idle.remove(&size);
        }
        self.stats.idle -= size * LINE;
        found
    }

    /// Frees idle buffers, largest first, until `extra` more bytes fit under the ceiling.
    fn make_room(&mut self, extra: usize) {
        let ceiling = (self.stats.peak_live + self.stats.peak_live / 8).max(self.stats.live + extra);
        while self.stats.live + self.stats.idle + extra > ceiling {
            let Some((&size, stack)) = self.idle.iter_mut().next_back() else { break };
            stack.pop();
            if stack.is_empty() {
                self.idle.remove(&size);
            }
            self.stats.idle -= size * LINE;
        }
    }
}

impl Buffer {
    /// At least `bytes` bytes with arbitrary (but initialised) contents.
    pub(crate) fn take(bytes: usize) -> Arc<Buffer> {
        let lines = bytes.div_ceil(LINE);
        let reused = {
            let mut p = lock(pool());
            let found = p.take(lines);
            let size = found.as_ref().map_or(lines, |b| b.len()) * LINE;
            if found.is_none() {
                p.make_room(size);
                p.stats.allocations += 1;
            }
            p.stats.live += size;
            p.stats.peak_live = p.stats.peak_live.max(p.stats.live);
            found
        };
        // Zeroed by the operating system, outside the lock; reused buffers keep what they held.
        let lines = reused.unwrap_or_else(|| bytemuck::allocation::zeroed_slice_box(lines));
        Arc::new(Buffer { lines })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let size = lines.len() * LINE;
        let mut p = lock(pool());
        p.stats.live -= size;
        p.stats.idle += size;
        p.idle.entry(lines.len()).or_default().push(lines);
    }
}
