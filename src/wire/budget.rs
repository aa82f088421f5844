//! Memory accounts: how many bytes of bodies are held, for the server and for one connection.
//!
//! A [`Charge`] lives as long as the bytes it stands for and gives them back when it is dropped,
//! so no path through a state machine can forget to.
#![forbid(unsafe_code)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// An account with a limit, in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    parent: Option<Arc<Budget>>,
}

/// Why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// The account itself is full: one connection holds too much.
    Own,
    /// The account above it is full: the server holds too much.
    Parent,
}

impl Exceeded {
    /// The status that says so: whoever holds too much, the client may try again later.
    pub(crate) fn status(self) -> u16 {
        429
    }
}

impl Budget {
    /// An account of its own.
    pub(crate) fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), limit, parent: None })
    }

    /// An account whose bytes count in `parent` too.
    pub(crate) fn within(parent: &Arc<Budget>, limit: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), limit, parent: Some(parent.clone()) })
    }

    /// Which account is full, if one is: answers that nobody takes fill it without asking.
    pub(crate) fn full(&self) -> Option<Exceeded> {
        if self.used() >= self.limit {
            return Some(Exceeded::Own);
        }
        self.parent.as_ref().filter(|parent| parent.used() >= parent.limit).map(|_| Exceeded::Parent)
    }

    /// Bytes that are held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes taken from a budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// A charge of nothing yet.
    pub(crate) fn new(budget: &Arc<Budget>) -> Charge {
        Charge { budget: budget.clone(), bytes: 0 }
    }

    /// Takes more bytes, if all accounts have them.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exceeded> {
        if !self.budget.take(bytes) {
            return Err(Exceeded::Own);
        }
        if let Some(parent) = &self.budget.parent
            && !parent.take(bytes)
        {
            self.budget.release(bytes);
            return Err(Exceeded::Parent);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Holds `bytes` from now on, even beyond the limit: for what exists already, as answers do.
    pub(crate) fn set(&mut self, bytes: usize) {
        if self.bytes == bytes {
            return;
        }
        self.release();
        self.budget.force(bytes);
        if let Some(parent) = &self.budget.parent {
            parent.force(bytes);
        }
        self.bytes = bytes;
    }

    fn release(&mut self) {
        self.budget.release(self.bytes);
        if let Some(parent) = &self.budget.parent {
            parent.release(self.bytes);
        }
        self.bytes = 0;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_count_in_both_accounts_and_return() {
        let server = Budget::new(100);
        let (one, two) = (Budget::within(&server, 80), Budget::within(&server, 80));
        let mut first = Charge::new(&one);
        first.grow(60).unwrap();
        assert_eq!(first.grow(30), Err(Exceeded::Own));
        let mut second = Charge::new(&two);
        assert_eq!(second.grow(50), Err(Exceeded::Parent));
        assert_eq!((two.used(), server.used()), (0, 60));
        second.grow(40).unwrap();
        drop(first);
        assert_eq!((one.used(), server.used()), (0, 40));
        assert_eq!(two.full(), None);
        second.set(500);
        assert_eq!(server.used(), 500);
        assert_eq!((two.full(), one.full()), (Some(Exceeded::Own), Some(Exceeded::Parent)));
        drop(second);
        assert_eq!(server.used(), 0);
    }

    #[test]
    fn sums_do_not_wrap() {
        let server = Budget::new(usize::MAX);
        let mut charge = Charge::new(&server);
        charge.grow(1).unwrap();
        assert_eq!(charge.grow(usize::MAX), Err(Exceeded::Own));
    }
}
