//! What thousands of services have alike, and few have otherwise.

use std::ops::{Deref, DerefMut};

/// A type with a default that most have, and can share.
pub trait Usual: Default + 'static {
    fn usual() -> &'static Self;
}

/// Makes one default of a type for all to share.
macro_rules! usual {
    ($type:ty) => {
        impl $crate::seldom::Usual for $type {
            fn usual() -> &'static Self {
                static USUAL: std::sync::LazyLock<$type> =
                    std::sync::LazyLock::new(Default::default);
                &USUAL
            }
        }
    };
}
pub(crate) use usual;

/// A value that takes no memory while it is the default. To write to it makes it one of its own:
/// who only wants to take something back asks for [`Seldom::changed`].
#[derive(Clone, Debug)]
pub struct Seldom<T>(Option<Box<T>>);

impl<T> Seldom<T> {
    /// The value, unless it is the one that all share.
    pub fn own(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The same, to write to.
    pub fn changed(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Usual + PartialEq> From<T> for Seldom<T> {
    fn from(value: T) -> Self {
        Self((value != *T::usual()).then(|| Box::new(value)))
    }
}

impl<T: Usual> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::usual())
    }
}

impl<T: Usual> DerefMut for Seldom<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Usual + PartialEq> PartialEq for Seldom<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Usual + Eq> Eq for Seldom<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Count {
        clients: u32,
    }

    usual!(Count);

    #[test]
    fn what_is_not_changed_is_shared_and_takes_a_pointer() {
        let count = Seldom::<Count>::default();
        assert!(std::ptr::eq(&raw const *count, Count::usual()));
        assert_eq!(size_of_val(&count), size_of::<usize>());
    }

    #[test]
    fn a_change_is_its_own() {
        let mut counts = [Seldom::<Count>::default(), Seldom::default()];
        assert_eq!(counts[0].changed(), None);
        counts[0].clients += 1;
        assert_eq!(counts.each_ref().map(|count| count.clients), [1, 0]);
        assert_eq!(counts[0].changed(), Some(&mut Count { clients: 1 }));
    }

    #[test]
    fn the_same_value_is_the_same_whoever_has_it() {
        let count = |clients| Seldom::from(Count { clients });
        let mut same = count(1);
        assert_ne!(same, Seldom::default());
        same.clients = 0;
        assert_eq!(same, Seldom::default());
        assert_eq!(count(0).changed(), None);
    }
}
