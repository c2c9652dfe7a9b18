//! After warm-up, a training step takes all its large buffers from the pool: it asks the system for none, and the ordinary allocator for
//! nothing larger than bookkeeping.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(unsafe_code)] // a counting allocator cannot be written without

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ocelli_tensor::{DType, Device};
use support::net::{Net, adam, tokens};

/// Largest request since the last reset, and the bytes of all requests.
static LARGEST: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches nothing else.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn count(size: usize) {
    LARGEST.fetch_max(size, Ordering::Relaxed);
    TOTAL.fetch_add(size, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test in this file: the counters belong to the whole process.
#[test]
fn a_step_after_warm_up_allocates_nothing_large() {
    // With one thread the order in which buffers are taken and returned is the same in every step.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for compute in [DType::F32, DType::Bf16] {
            Device::Cpu.trim_pool();
            let mut net = Net::new(compute);
            let layout = Net::layout();
            let mut adam = adam();
            let ids = tokens(layout.query_rows() + 1, &mut support::rng(9));
            let mut step = || {
                LARGEST.store(0, Ordering::Relaxed);
                TOTAL.store(0, Ordering::Relaxed);
                net.train_step(&mut adam, &layout, &ids);
                let stats = Device::Cpu.pool_stats();
                (
                    LARGEST.load(Ordering::Relaxed),
                    TOTAL.load(Ordering::Relaxed),
                    stats.allocations,
                    stats.peak_live,
                )
            };
            let (first, ..) = step();
            // The first step does ask for its buffers: an activation of the MLP alone has 555 rows of 200.
            assert!(
                first >= 555 * 200 * compute.size(),
                "{compute:?}: counted at most {first} bytes at once"
            );
            // The pool settles on a set of buffers within some steps: a request may first take one that a later request fits better.
            let settling: Vec<u64> = (0..10).map(|_| step().2).collect();
            let (_, _, before, peak) = step();
            for _ in 0..3 {
                let (largest, total, after, peak_after) = step();
                assert_eq!(
                    (after, peak_after),
                    (before, peak),
                    "{compute:?}: buffers from the system; so far {settling:?}"
                );
                assert!(largest <= 16 << 10, "{compute:?}: {largest} bytes at once outside the pool");
                assert!(total <= 1 << 20, "{compute:?}: {total} bytes in a step outside the pool");
            }
        }
    });
}
