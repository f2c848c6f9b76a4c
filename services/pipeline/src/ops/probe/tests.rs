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
use crate::storage::{self, Created, StoreHealth};

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
    /// It is away for ten minutes of the test's clock.
    DownForAWhile,
    /// It does not let us.
    Denied,
    /// There is no such bucket.
    NoBucket,
}

const A_WHILE: Duration = Duration::from_mins(10);

#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    fault: Fault,
    made_at: Instant,
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
                Fault::DownForAWhile if self.made_at.elapsed() < A_WHILE => {
                    return Err(Error::Generic { store: "Faulty", source: "503".into() });
                }
                Fault::DownForAWhile => return self.inner.put_opts(key, payload, options).await,
                Fault::Denied => {
                    return Err(Error::PermissionDenied { path: key.to_string(), source: "403".into() });
                }
                Fault::NoBucket => return Err(Error::NotFound { path: key.to_string(), source: "404".into() }),
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
    StoreRoot {
        store: Arc::new(Faulty { inner: InMemory::new(), fault, made_at: Instant::now() }),
        prefix: Path::from("archive"),
    }
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

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_a_store_that_is_away() {
    let (board, started) = (StatusBoard::new("t"), Instant::now());
    let root = faulty(Fault::DownForAWhile);
    let waiting = wait_until_usable("archive.url", &root, &board);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(A_WHILE / 2, &mut waiting).await.is_err(), "it did not wait");
    let reasons = board.not_ready_because(Duration::ZERO).join("\n");
    assert!(reasons.contains("object_store: archive.url: ") && reasons.contains("503"), "{reasons}");
    waiting.await.unwrap();
    assert!(started.elapsed() < A_WHILE + Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(board.dependencies()[Dependency::ObjectStore as usize].ok, Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_start_does_not_wait_for_what_only_a_person_can_mend() {
    for (fault, advice) in [
        (Fault::Ignores, "conditional writes"),
        (Fault::Denied, "AWS_ credentials"),
        (Fault::NoBucket, "create the bucket"),
    ] {
        let error = wait_until_usable("state.url", &faulty(fault), &StatusBoard::new("t")).await.unwrap_err();
        assert!(render(&error).contains(advice), "{fault:?}: {error:#}");
    }
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_an_answer() {
    let source = std::io::Error::from(ErrorKind::PermissionDenied);
    let source = Error::Generic { store: "LocalFileSystem", source: source.into() };
    let error = ProbeError::Unusable { store: "file".to_owned(), source };
    assert!(!error.may_get_better());
    assert!(error.advice().contains("directory"));
}

/// What a writer told about a store.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<bool>>);

impl StoreHealth for Told {
    fn failing(&self, _: &Path, _: &Error) {
        self.0.lock().unwrap().push(false);
    }

    fn ok(&self) {
        self.0.lock().unwrap().push(true);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_guarded_against_replacement_counts_as_there() {
    let (root, told) = (faulty(Fault::Denied), Told::default());
    let (free, taken) = (Path::from("archive/free"), Path::from("archive/taken"));
    let inner = InMemory::new();
    inner.put_opts(&taken, "first".into(), PutMode::Create.into()).await.unwrap();
    let guarded = Faulty { inner, fault: Fault::Denied, made_at: Instant::now() };
    let guarded = StoreRoot { store: Arc::new(guarded), prefix: root.prefix.clone() };
    assert_eq!(storage::create(&guarded, &taken, "second".into(), &told).await, Created::Already);
    assert_eq!(*told.0.lock().unwrap(), [true]);

    // Nothing there: then we lack the right, which is said again and again until somebody gives it.
    let denied = storage::create(&root, &free, "first".into(), &told);
    assert!(tokio::time::timeout(Duration::from_mins(1), denied).await.is_err());
    let told = told.0.lock().unwrap();
    assert!(told.len() > 5 && told[1..].iter().all(|ok| !ok), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_refused_as_there_and_is_not_is_told_of() {
    let (root, told) = (faulty(Fault::OnlyConflicts), Told::default());
    let key = Path::from("archive/torn");
    let created = storage::create(&root, &key, "first".into(), &told);
    assert!(tokio::time::timeout(Duration::from_mins(1), created).await.is_err());
    let failures = told.0.lock().unwrap().iter().filter(|ok| !**ok).count();
    assert!(failures > 5, "{failures}");
}
