//! Devices, and the pool every large buffer comes from and goes back to.
//!
//! A training step of a fixed shape allocates the same buffers again and again. Asking the operating system each time
//! costs a page fault per 4 KiB (measured: a quarter of the time of a small step), so a dropped buffer waits here for the next
//! request of about its size. The pool never holds more than the largest amount that was ever in use at once, plus an eighth and 4 MiB.
//!
//! Buffers of 2 MiB and more are mapped with huge pages where the system has them: packing walks through matrices with strides of
//! a page, and one entry of the address cache then covers 512 of those (measured: 4 to 24 % of a training step).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use memmap2::MmapMut;

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

/// Smallest buffer that is mapped on its own.
const HUGE: usize = 2 << 20;

/// Initialised memory, aligned to [`LINE`].
enum Memory {
    Heap(Box<[Line]>),
    Mapped(MmapMut),
}

impl Memory {
    /// Zeros, straight from the operating system where that is cheap.
    fn new(lines: usize) -> Memory {
        if lines * LINE >= HUGE
            && let Ok(map) = MmapMut::map_anon(lines * LINE)
        {
            // Only a hint: without huge pages the memory is the same.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Memory::Mapped(map);
        }
        Memory::Heap(bytemuck::allocation::zeroed_slice_box(lines))
    }

    fn lines(&self) -> usize {
        match self {
            Memory::Heap(b) => b.len(),
            Memory::Mapped(m) => m.len() / LINE,
        }
    }
}

/// Idle memory that is always kept: without it, small steps freed and made the same few buffers again and again.
const SLACK: usize = 4 << 20;

/// An owned piece of device memory; returns to its pool when dropped.
pub(crate) struct Buffer {
    memory: Memory,
}

#[derive(Default)]
struct Pool {
    /// Idle buffers by their size in lines.
    idle: BTreeMap<usize, Vec<Memory>>,
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
    fn take(&mut self, lines: usize) -> Option<Memory> {
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
        let peak = self.stats.peak_live;
        let ceiling = (peak + peak / 8 + SLACK).max(self.stats.live + extra);
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
            let size = found.as_ref().map_or(lines, Memory::lines) * LINE;
            if found.is_none() {
                p.make_room(size);
                p.stats.allocations += 1;
            }
            p.stats.live += size;
            p.stats.peak_live = p.stats.peak_live.max(p.stats.live);
            found
        };
        // Reused buffers keep what they held; new ones are made outside the lock.
        Arc::new(Buffer { memory: reused.unwrap_or_else(|| Memory::new(lines)) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(lines) => bytemuck::cast_slice(lines),
            Memory::Mapped(map) => map,
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Mapped(map) => map,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::Heap(Box::default()));
        let size = memory.lines() * LINE;
        let mut p = lock(pool());
        p.stats.live -= size;
        p.stats.idle += size;
        p.idle.entry(size / LINE).or_default().push(memory);
    }
}
