use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::*;
use crate::ops::advice::render;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It looks whether the key is free, and then writes: the classic way to get it wrong.
    LooksThenWrites,
    /// It takes the condition and does not care.
    Ignores,
    /// It answers each creation as a conflict that should be tried again, and writes nothing.
    OnlyConflicts,
    /// It is away.
    Down,
}

#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    fault: Fault,
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Faulty")
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Written out by hand what `async_trait` makes of it, for one test alone.
impl ObjectStore for Faulty {
    fn put_opts<'a, 'b, 'f>(&'a self, key: &'b Path, payload: PutPayload, options: PutOptions) -> Boxed<'f, PutResult>
    where
        'a: 'f,
        'b: 'f,
    {
        Box::pin(async move {
            let already = || Error::AlreadyExists { path: key.to_string(), source: "condition".into() };
            match self.fault {
                Fault::Down => return Err(Error::Generic { store: "Faulty", source: "503".into() }),
                Fault::OnlyConflicts => return Err(already()),
                Fault::LooksThenWrites => {
                    let taken = self.inner.head(key).await.is_ok();
                    tokio::task::yield_now().await;
                    if taken {
                        return Err(already());
                    }
                }
                Fault::Ignores => {}
            }
            self.inner.put_opts(key, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
        })
    }

    fn put_multipart_opts<'a, 'b, 'f>(
        &'a self,
        key: &'b Path,
        options: PutMultipartOptions,
    ) -> Boxed<'f, Box<dyn MultipartUpload>>
    where
        'a: 'f,
        'b: 'f,
    {
        self.inner.put_multipart_opts(key, options)
    }

    fn get_opts<'a, 'b, 'f>(&'a self, key: &'b Path, options: GetOptions) -> Boxed<'f, GetResult>
    where
        'a: 'f,
        'b: 'f,
    {
        self.inner.get_opts(key, options)
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'f>(&'a self, prefix: Option<&'b Path>) -> Boxed<'f, ListResult>
    where
        'a: 'f,
        'b: 'f,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'c, 'f>(&'a self, from: &'b Path, to: &'c Path, options: CopyOptions) -> Boxed<'f, ()>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        self.inner.copy_opts(from, to, options)
    }
}

fn faulty(fault: Fault) -> StoreRoot {
    StoreRoot { store: Arc::new(Faulty { inner: InMemory::new(), fault }), prefix: Path::from("archive") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_stores_pass_and_are_left_clean() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
    for store in stores {
        let root = StoreRoot { store, prefix: Path::from("archive") };
        create_only(&root).await.unwrap();
        let left = root.store.list_with_delimiter(Some(&root.prefix.clone().join(PLACE))).await.unwrap();
        assert!(left.objects.is_empty(), "{:?}", left.objects);
    }
}

#[tokio::test]
async fn stores_that_do_not_create_atomically_are_refused() {
    for fault in [Fault::LooksThenWrites, Fault::Ignores] {
        let error = probe(&faulty(fault)).await.unwrap_err();
        assert!(matches!(error, ProbeError::NotAtomic { .. }), "{fault:?}: {error}");
        assert!(!error.may_get_better());
    }
    let text = render(&create_only(&faulty(Fault::Ignores)).await.unwrap_err());
    assert!(text.contains("Faulty (prefix \"archive\") does not create atomically"), "{text}");
    assert!(text.contains("what to do: use a store with conditional writes"), "{text}");
}

#[tokio::test]
async fn a_store_that_is_away_is_not_called_wrong() {
    for fault in [Fault::Down, Fault::OnlyConflicts] {
        let error = probe(&faulty(fault)).await.unwrap_err();
        assert!(error.may_get_better(), "{fault:?}: {error}");
    }
    let text = render(&create_only(&faulty(Fault::Down)).await.unwrap_err());
    assert!(text.contains("503") && text.contains("reachable from here"), "{text}");
}
