//! Room for what few calls need.

/// Something on the heap that is mostly not there: then dropping it is a test, and no call of what drops it.
#[derive(Debug)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T> Rare<T> {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn as_ref(&self) -> Option<&T> {
        self.0.as_deref()
    }

    pub(crate) fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    pub(crate) fn take(&mut self) -> Option<Box<T>> {
        self.0.take()
    }
}

impl<T: Default> Rare<T> {
    pub(crate) fn get_or_insert_default(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T> Drop for Rare<T> {
    #[inline]
    fn drop(&mut self) {
        #[cold]
        #[inline(never)]
        fn free<T>(rare: Box<T>) {
            drop(rare);
        }

        if let Some(rare) = self.0.take() {
            free(rare);
        }
    }
}
