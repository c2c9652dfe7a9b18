//! Devices, and the pool every large buffer comes from and goes back to.
//!
//! A training step of a fixed shape allocates the same buffers again and again. Asking the operating system each time
//! costs a page fault per 4 KiB (measured: a quarter of the time of a small step), so a dropped buffer waits here for the next
//! request of about its size. The pool never holds more than the largest amount that was ever in use at once, plus a quarter and 4 MiB;
//! what has waited longest goes first. (Measured on a training step of 730 MiB: with an eighth, the largest going first, 270 MiB a step were
//! given back and asked for again, 6 % of its time; so it is 18 MiB, for a twentieth more memory.)
//!
//! Buffers of 2 MiB and more are mapped with huge pages where the system has them: packing walks through matrices with strides of
//! a page, and one entry of the address cache then covers 512 of those (measured: 4 to 24 % of a training step).

use std::collections::{BTreeMap, VecDeque};
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
    /// Idle buffers by their size in lines, each with the time it came back; the one that has waited longest is first.
    idle: BTreeMap<usize, VecDeque<(u64, Memory)>>,
    /// Counts the buffers that came back.
    clock: u64,
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
        let (&size, waiting) = self.idle.range_mut(lines..=limit).next()?;
        // The one that came back last is the likeliest to be in the processor's caches.
        let (_, found) = waiting.pop_back()?;
        self.left(size);
        Some(found)
    }

    /// Counts a buffer of at least `lines` as alive. `None`: it is to be made, and there is room for it.
    fn request(&mut self, lines: usize) -> Option<Memory> {
        let found = self.take(lines);
        let size = found.as_ref().map_or(lines, Memory::lines) * LINE;
        if found.is_none() {
            self.make_room(size);
            self.stats.allocations += 1;
        }
        self.stats.live += size;
        self.stats.peak_live = self.stats.peak_live.max(self.stats.live);
        found
    }

    /// Frees idle buffers, those that have waited longest first, until `extra` more bytes fit under the ceiling.
    fn make_room(&mut self, extra: usize) {
        let peak = self.stats.peak_live;
        let ceiling = (peak + peak / 4 + SLACK).max(self.stats.live + extra);
        while self.stats.live + self.stats.idle + extra > ceiling {
            let since = |waiting: &VecDeque<(u64, Memory)>| waiting.front().map(|(at, _)| *at);
            let Some((&size, waiting)) = self.idle.iter_mut().min_by_key(|(_, w)| since(w)) else { break };
            waiting.pop_front();
            self.left(size);
        }
    }

    /// Counts a buffer of `size` lines that is idle no more.
    fn left(&mut self, size: usize) {
        if self.idle.get(&size).is_some_and(VecDeque::is_empty) {
            self.idle.remove(&size);
        }
        self.stats.idle -= size * LINE;
    }

    /// Takes back a buffer.
    fn give(&mut self, memory: Memory) {
        let lines = memory.lines();
        self.clock += 1;
        self.stats.live -= lines * LINE;
        self.stats.idle += lines * LINE;
        self.idle.entry(lines).or_default().push_back((self.clock, memory));
    }
}

impl Buffer {
    /// At least `bytes` bytes with arbitrary (but initialised) contents.
    pub(crate) fn take(bytes: usize) -> Arc<Buffer> {
        let lines = bytes.div_ceil(LINE);
        let reused = lock(pool()).request(lines);
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
        lock(pool()).give(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(pool: &mut Pool, lines: usize) -> Memory {
        pool.request(lines).unwrap_or_else(|| Memory::new(lines))
    }

    /// Two phases of a step that share no size: each phase needs what the other gave back, and the room is not enough for both.
    #[test]
    fn idle_memory_stays_below_the_ceiling() {
        let mut pool = Pool::default();
        let (a, b) = (1 << 17, 3 << 16);
        for _ in 0..3 {
            for lines in [a, b] {
                let held: Vec<Memory> = (0..8).map(|_| get(&mut pool, lines)).collect();
                assert_eq!(pool.stats.live, 8 * lines * LINE);
                held.into_iter().for_each(|m| pool.give(m));
                let s = pool.stats;
                assert_eq!(s.live, 0);
                assert!(s.idle <= s.peak_live + s.peak_live / 4 + SLACK, "{s:?}");
                let counted: usize =
                    pool.idle.iter().map(|(lines, waiting)| lines * LINE * waiting.len()).sum();
                assert_eq!(s.idle, counted);
            }
        }
    }

    /// What the next step needs again stays; what nobody has asked for since goes first, whatever its size.
    #[test]
    fn what_waited_longest_goes_first() {
        let mut pool = Pool::default();
        let once = get(&mut pool, 1 << 16);
        pool.give(once);
        let mut steps = Vec::new();
        for _ in 0..4 {
            let before = pool.stats.allocations;
            let big = get(&mut pool, 1 << 18);
            let small = get(&mut pool, 3 << 15);
            pool.give(big);
            let middle = get(&mut pool, 1 << 17);
            pool.give(middle);
            pool.give(small);
            steps.push(pool.stats.allocations - before);
        }
        assert_eq!(steps, [3, 0, 0, 0], "a step of the same sizes asks the system for nothing");
        assert!(!pool.idle.contains_key(&(1 << 16)), "the buffer that was needed once made room");
    }
}
