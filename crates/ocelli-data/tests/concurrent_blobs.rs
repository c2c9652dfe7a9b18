//! Many threads put the same blobs at once, as the rollouts of a group do when they cut out the same region.

use std::sync::Barrier;

use ocelli_data::io::BlobStore;

#[test]
fn threads_that_put_the_same_blob_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::new(dir.path());
    let start = Barrier::new(8);
    // Looked at after the last round: a thread that fell earlier would leave the others at the barrier.
    let put = || -> Vec<_> {
        let one = |round: u8| {
            let bytes = vec![round; 5000];
            start.wait();
            store.put(&bytes).and_then(|hash| store.get(hash, 5000)).map(|kept| kept == bytes)
        };
        (0..60).map(one).collect()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(put)).collect();
        for kept in threads.into_iter().flat_map(|t| t.join().unwrap()) {
            assert!(kept.unwrap());
        }
    });
    // 60 blobs and no temporary file.
    let files = std::fs::read_dir(dir.path()).unwrap().flatten();
    let files = files.flat_map(|d| std::fs::read_dir(d.path()).unwrap().flatten());
    assert_eq!(files.count(), 60);
}
