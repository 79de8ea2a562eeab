//! Room for what few calls need; for the futures of layers.

/// Something on the heap that is mostly not there: then dropping it is a test, and no call of what drops it.
#[derive(Debug)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Rare<T> {
    /// With `it` there.
    pub fn some(it: T) -> Self {
        Self(Some(Box::new(it)))
    }

    /// Nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What is there.
    pub fn as_ref(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// What is there, to be changed.
    pub fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Takes it out.
    pub fn take(&mut self) -> Option<Box<T>> {
        self.0.take()
    }
}

impl<T: Default> Rare<T> {
    /// What is there, or else a default.
    pub fn get_or_insert_default(&mut self) -> &mut T {
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
