//! The same question about each of many things, asked from several threads: about thousands of files the system is asked for longer
//! than anything else takes.

use std::thread;

/// More threads than this gain nothing.
const MOST: usize = 8;

/// What `of` says of each item, in their order. A thread has at least `least` of them, for a thread costs something too.
pub fn each<T: Sync, R: Send>(items: &[T], least: usize, of: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST);
    let (part, of) = (items.len().div_ceil(threads).max(least).max(1), &of);
    thread::scope(|scope| {
        let ask = |part| scope.spawn(move || <[T]>::iter(part).map(of).collect::<Vec<R>>());
        let parts: Vec<_> = items.chunks(part).map(ask).collect();
        let join = |part: thread::ScopedJoinHandle<'_, _>| {
            part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        parts.into_iter().flat_map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_asked_about_once_and_in_order() {
        for (count, least) in [(0, 1), (1, 1), (7, 0), (7, 3), (1000, 1), (1000, 250), (1000, 5000)] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(each(&items, least, |n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        }
        let failed = std::panic::catch_unwind(|| each(&[1, 2, 3], 1, |n| assert!(*n < 3)));
        assert!(failed.is_err(), "a panic is not swallowed");
    }
}
