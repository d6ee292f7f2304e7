//! Senders, receivers and shared memory of the crate ipc-channel travel.

mod common;

use common::sync::{finish, finish_all, in_time, start};
use common::{PATIENCE, wait_until, watchdog};
use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory,
    OpaqueIpcReceiver, OpaqueIpcSender,
};
use ipc_channel::{IpcError, TryRecvError};
use multiproc::ipc::Ipc;
use multiproc::{Data, LifoQueue, Pipe, Pool, Process, Queue, StartMethod};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Who counts the descriptors of the process wants to be alone.
static ALONE: RwLock<()> = RwLock::new(());

fn among_others() -> RwLockReadGuard<'static, ()> {
    watchdog();
    ALONE.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    watchdog();
    ALONE.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How many sockets and shared memories this process has open: what parts of channels are made of.
/// Others come and go with processes, some of them later.
fn open_files() -> usize {
    let listed = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let targets = listed.filter_map(|file| std::fs::read_link(file.path()).ok());
    let is_part = |path: &std::path::PathBuf| {
        let path = path.to_string_lossy();
        path.starts_with("socket:") || path.starts_with("/memfd:")
    };
    targets.filter(is_part).count()
}

/// Waits until as many as `before` are open.
#[track_caller]
fn wait_until_closed(before: usize) {
    wait_until("all that was open for a while is closed", || open_files() <= before);
}

/// What a channel brings; fails instead of hanging.
#[track_caller]
fn receive<T: Data>(receiver: &IpcReceiver<T>) -> T {
    receiver.try_recv_timeout(PATIENCE).expect("a message")
}

/// Waits until nobody has a sender of the channel any more.
#[track_caller]
fn wait_until_alone<T: Data + std::fmt::Debug>(receiver: &IpcReceiver<T>) {
    wait_until("all senders are gone", || match receiver.try_recv() {
        Err(TryRecvError::IpcError(IpcError::Disconnected)) => true,
        Err(TryRecvError::Empty) => false,
        other => panic!("{other:?}"),
    });
}

/// One of each type.
#[derive(Serialize, Deserialize)]
struct All {
    sender: Ipc<IpcSender<String>>,
    receiver: Ipc<IpcReceiver<String>>,
    bytes_sender: Ipc<IpcBytesSender>,
    bytes_receiver: Ipc<IpcBytesReceiver>,
    opaque_sender: Ipc<OpaqueIpcSender>,
    opaque_receiver: Ipc<OpaqueIpcReceiver>,
    memory: Ipc<IpcSharedMemory>,
    nothing: Ipc<IpcSharedMemory>,
}

/// The other ends of the channels of an [`All`].
struct Others {
    from_sender: IpcReceiver<String>,
    to_receiver: IpcSender<String>,
    from_bytes: IpcBytesReceiver,
    to_bytes: IpcBytesSender,
    from_opaque: IpcReceiver<u32>,
    to_opaque: IpcSender<u32>,
}

impl All {
    fn new() -> (Self, Others) {
        let (sender, from_sender) = ipc::channel().expect("a channel");
        let (to_receiver, receiver) = ipc::channel().expect("a channel");
        let (bytes_sender, from_bytes) = ipc::bytes_channel().expect("a channel");
        let (to_bytes, bytes_receiver) = ipc::bytes_channel().expect("a channel");
        let (opaque_sender, from_opaque) = ipc::channel().expect("a channel");
        let (to_opaque, opaque_receiver) = ipc::channel().expect("a channel");
        let all = Self {
            sender: Ipc::new(sender),
            receiver: Ipc::new(receiver),
            bytes_sender: Ipc::new(bytes_sender),
            bytes_receiver: Ipc::new(bytes_receiver),
            opaque_sender: Ipc::new(opaque_sender.to_opaque()),
            opaque_receiver: Ipc::new(opaque_receiver.to_opaque()),
            memory: Ipc::new(IpcSharedMemory::from_bytes(b"memory")),
            nothing: Ipc::new(IpcSharedMemory::from_bytes(b"")),
        };
        let others =
            Others { from_sender, to_receiver, from_bytes, to_bytes, from_opaque, to_opaque };
        (all, others)
    }

    /// Uses all of them: sends on what it receives, and the length of the memories.
    fn echo(self) {
        let text = self.receiver.into_inner().expect("receiver").recv().expect("a text");
        self.sender.into_inner().expect("sender").send(text).expect("somebody listens");
        let bytes = self.bytes_receiver.into_inner().expect("receiver").recv().expect("bytes");
        self.bytes_sender.into_inner().expect("sender").send(&bytes).expect("somebody listens");
        let receiver = self.opaque_receiver.into_inner().expect("receiver").to::<u32>();
        let sender = self.opaque_sender.into_inner().expect("sender").to::<u32>();
        let memory = self.memory.into_inner().expect("memory");
        let nothing = self.nothing.into_inner().expect("memory");
        assert_eq!((&*memory, &*nothing), (&b"memory"[..], &b""[..]));
        sender.send(receiver.recv().expect("a number") + 1).expect("somebody listens");
    }
}

impl Others {
    /// Has an [`All`] elsewhere echo.
    #[track_caller]
    fn check(&self) {
        self.to_receiver.send("text".to_owned()).expect("somebody listens");
        self.to_bytes.send(b"bytes").expect("somebody listens");
        self.to_opaque.send(41).expect("somebody listens");
        assert_eq!(receive(&self.from_sender), "text");
        assert_eq!(in_time(|| self.from_bytes.recv()).expect("bytes"), b"bytes");
        assert_eq!(receive(&self.from_opaque), 42);
    }
}

#[test]
fn a_value_of_each_type_is_an_argument_of_a_process_by_each_start_method() {
    let _among = among_others();
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let (all, others) = All::new();
        let builder = Process::builder(All::echo, (all,)).start_method(method);
        let mut process = builder.spawn().expect("a process");
        others.check();
        process.join_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn values_of_plain_types_are_arguments() {
    let _among = among_others();
    let (sender, from_sender) = ipc::channel::<u32>().unwrap();
    let (to_receiver, receiver) = ipc::channel::<u32>().unwrap();
    let (bytes_sender, from_bytes) = ipc::bytes_channel().unwrap();
    let (to_bytes, bytes_receiver) = ipc::bytes_channel().unwrap();
    let (opaque_sender, from_opaque) = ipc::channel::<u32>().unwrap();
    let (to_opaque, opaque_receiver) = ipc::channel::<u32>().unwrap();
    let work = |sender: IpcSender<u32>,
                receiver: IpcReceiver<u32>,
                bytes_sender: IpcBytesSender,
                bytes_receiver: IpcBytesReceiver,
                opaque_sender: OpaqueIpcSender,
                opaque_receiver: OpaqueIpcReceiver,
                memory: IpcSharedMemory,
                nothing: IpcSharedMemory,
                text: String| {
        assert_eq!((&*memory, &*nothing, &*text), (&[7; 10_000][..], &b""[..], "text"));
        sender.send(receiver.recv().expect("a number")).expect("somebody listens");
        bytes_sender.send(&bytes_receiver.recv().expect("bytes")).expect("somebody listens");
        let number = opaque_receiver.to::<u32>().recv().expect("a number");
        opaque_sender.to::<u32>().send(number).expect("somebody listens");
    };
    let arguments = (
        sender,
        receiver,
        bytes_sender,
        bytes_receiver,
        opaque_sender.to_opaque(),
        opaque_receiver.to_opaque(),
        IpcSharedMemory::from_byte(7, 10_000),
        IpcSharedMemory::from_bytes(&[]),
        "text".to_owned(),
    );
    let process = start(work, arguments);
    to_receiver.send(1).unwrap();
    to_bytes.send(b"2").unwrap();
    to_opaque.send(3).unwrap();
    assert_eq!(receive(&from_sender), 1);
    assert_eq!(in_time(|| from_bytes.recv()).unwrap(), b"2");
    assert_eq!(receive(&from_opaque), 3);
    finish(process);
    wait_until_alone(&from_sender);
}

#[test]
fn what_was_sent_of_a_sender_and_of_memory_stays_usable() {
    let _among = among_others();
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    let memory = IpcSharedMemory::from_bytes(&[1, 2, 3]);
    let work = |sender: IpcSender<u32>, memory: IpcSharedMemory| {
        sender.send(memory.iter().map(|byte| u32::from(*byte)).sum()).expect("it is open");
    };
    for _ in 0..2 {
        finish(start(work, (sender.clone(), memory.clone())));
        assert_eq!(receive(&receiver), 6);
    }
    sender.send(4).unwrap();
    assert_eq!((receive(&receiver), &*memory), (4, &[1, 2, 3][..]));
}

#[test]
fn values_are_results_of_processes() {
    let _among = among_others();
    let plain = || {
        let (sender, receiver) = ipc::channel::<String>().expect("a channel");
        sender.send("from a process that is gone".to_owned()).expect("it is open");
        receiver
    };
    assert_eq!(receive(&finish(start(plain, ()))), "from a process that is gone");
    let memory = || IpcSharedMemory::from_bytes(b"its memory");
    assert_eq!(&*finish(start(memory, ())), b"its memory");
    let wrapped = || (Ipc::new(IpcSharedMemory::from_bytes(b"more")), 5_u8);
    let (memory, number) = finish(start(wrapped, ()));
    assert_eq!((&*memory.into_inner().unwrap(), number), (&b"more"[..], 5));
}

#[test]
fn values_are_arguments_and_results_of_tasks() {
    let _among = among_others();
    let pool = Pool::builder().workers(2).build().unwrap();
    let (sender, receiver) = ipc::channel::<u64>().unwrap();
    let send = |sender: IpcSender<u64>, number: u64| sender.send(number).expect("it is open");
    pool.apply(send, (sender.clone(), 5)).unwrap();
    assert_eq!(receive(&receiver), 5);

    let answer = |number: u64| {
        let (sender, receiver) = ipc::channel().expect("a channel");
        sender.send(number).expect("it is open");
        receiver
    };
    let receivers: Vec<IpcReceiver<u64>> = pool.map(answer, 0..200).unwrap();
    for (number, receiver) in receivers.iter().enumerate() {
        assert_eq!(receive(receiver), number as u64);
    }

    let senders: Vec<_> = (0..100_u64).map(|number| (Ipc::new(sender.clone()), number)).collect();
    let send = |(sender, number): (Ipc<IpcSender<u64>>, u64)| {
        sender.into_inner().expect("a sender").send(number).expect("it is open");
    };
    pool.map(send, senders).unwrap();
    let mut numbers: Vec<u64> = (0..100).map(|_| receive(&receiver)).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..100));

    let echo = |mut memories: Vec<Ipc<IpcSharedMemory>>| {
        memories.reverse();
        memories
    };
    let memories: Vec<_> =
        (0..60).map(|byte| Ipc::new(IpcSharedMemory::from_byte(byte, 100))).collect();
    for (byte, memory) in pool.apply(echo, (memories,)).unwrap().into_iter().rev().enumerate() {
        assert_eq!(*memory.into_inner().unwrap(), [byte as u8; 100]);
    }

    drop(sender);
    wait_until_alone(&receiver);
}

#[test]
fn values_are_in_a_context_that_all_workers_decode() {
    let _among = among_others();
    let pool = Pool::builder().workers(3).build().unwrap();
    let (sender, receiver) = ipc::channel::<u64>().unwrap();
    let send = |sender: &IpcSender<u64>, number: u64| sender.send(number).expect("it is open");
    pool.map_with(&sender, send, 0..90).unwrap();
    let mut numbers: Vec<u64> = (0..90).map(|_| receive(&receiver)).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..90));
    drop(sender);
    wait_until_alone(&receiver);
}

#[test]
fn values_are_items_of_queues() {
    let _among = among_others();
    let queue = Queue::<(u32, Ipc<IpcSender<u32>>)>::new().unwrap();
    let plain = Queue::<IpcReceiver<u32>>::new().unwrap();
    let stack = LifoQueue::<IpcSharedMemory>::new().unwrap();
    let serve = |queue: Queue<(u32, Ipc<IpcSender<u32>>)>,
                 plain: Queue<IpcReceiver<u32>>,
                 stack: LifoQueue<IpcSharedMemory>| {
        let receiver = plain.get().expect("a receiver");
        let memory = stack.get().expect("memory");
        for item in &queue {
            let (number, sender) = item.expect("an item");
            let sum = number + receiver.recv().expect("a number") + u32::from(memory[0]);
            sender.into_inner().expect("a sender").send(sum).expect("somebody listens");
        }
    };
    let process = start(serve, (queue.clone(), plain.clone(), stack.clone()));
    let (numbers, receiver) = ipc::channel().unwrap();
    plain.put(receiver).unwrap();
    stack.put(IpcSharedMemory::from_byte(100, 1)).unwrap();
    for number in 0..50 {
        let (sender, receiver) = ipc::channel().unwrap();
        queue.put((number, Ipc::new(sender))).unwrap();
        numbers.send(number * 1000).unwrap();
        assert_eq!(receive(&receiver), number * 1001 + 100);
        wait_until_alone(&receiver);
    }
    queue.close();
    finish(process);
}

#[test]
fn values_are_messages_of_pipes() {
    let _among = among_others();
    let (sender, receiver) = Pipe::<All>::one_way().unwrap();
    let serve = |receiver: multiproc::PipeReceiver<All>| {
        for all in &receiver {
            all.expect("a message").echo();
        }
    };
    let process = start(serve, (receiver,));
    for _ in 0..5 {
        let (all, others) = All::new();
        sender.send(all).unwrap();
        others.check();
    }
    drop(sender);
    finish(process);
}

/// Ends the process that decodes it.
struct Fatal;

impl Serialize for Fatal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Fatal {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGKILL) };
        unreachable!("it was killed");
    }
}

#[test]
fn nothing_is_left_of_what_was_sent_to_processes_that_are_killed_before_or_after_they_decode_it() {
    let _alone = alone();
    // The fork server stays.
    finish(start(|| (), ()));
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    let before = open_files();
    for _ in 0..3 {
        let mut first = start(|_: Fatal, _: IpcSender<u32>| (), (Fatal, sender.clone()));
        let mut last = start(|_: IpcSender<u32>, _: Fatal| (), (sender.clone(), Fatal));
        let mut part = start(
            |_: Fatal, _: Vec<Ipc<IpcSender<u32>>>| (),
            (Fatal, vec![Ipc::new(sender.clone()), Ipc::new(sender.clone())]),
        );
        assert!(first.join_timeout(PATIENCE).unwrap_err().is_exited());
        assert!(last.join_timeout(PATIENCE).unwrap_err().is_exited());
        assert!(part.join_timeout(PATIENCE).unwrap_err().is_exited());
    }
    {
        let pool = Pool::builder().workers(2).build().unwrap();
        for _ in 0..3 {
            let task = |_: IpcSender<u32>, _: Fatal| ();
            assert!(pool.apply(task, (sender.clone(), Fatal)).unwrap_err().is_worker_died());
        }
    }
    wait_until_closed(before);
    drop(sender);
    wait_until_alone(&receiver);
}

#[test]
fn nothing_is_left_of_items_that_nobody_took() {
    let _alone = alone();
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    let before = open_files();
    let queue = Queue::new().unwrap();
    let (one, other) = Pipe::<Vec<Ipc<IpcSender<u32>>>>::one_way().unwrap();
    for _ in 0..5 {
        queue.put(sender.clone()).unwrap();
        one.send(vec![Ipc::new(sender.clone())]).unwrap();
    }
    drop((queue, one, other));
    wait_until_closed(before);
    drop(sender);
    wait_until_alone(&receiver);
}

#[test]
fn descriptors_are_as_many_as_before_when_values_have_come_and_gone() {
    let _alone = alone();
    let pool = Pool::builder().workers(1).build().unwrap();
    let count = |all: All| (open_files(), all);
    let round = || pool.apply(count, (All::new().0,)).unwrap().0;
    let (there, here) = (round(), open_files());
    for _ in 0..20 {
        round();
    }
    assert_eq!(round(), there);
    wait_until_closed(here);
}

#[test]
fn a_receiver_moves_and_an_ipc_keeps_it() {
    let _among = among_others();
    let queue = Queue::<IpcReceiver<u32>>::bounded(1).unwrap();
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    queue.put(&receiver).unwrap();
    assert!(receiver.try_recv().is_err());
    let error = queue.try_put(&receiver).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("can be sent once"), "{error}");
    sender.send(1).unwrap();
    assert_eq!(receive(&queue.get().unwrap()), 1);

    let queue = Queue::<Ipc<IpcReceiver<u32>>>::bounded(1).unwrap();
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    let receiver = Ipc::from(receiver);
    assert!(queue.try_put(&receiver).unwrap());
    assert!(!queue.try_put(&receiver).unwrap());
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    let other = queue.get().unwrap().into_inner().unwrap();
    assert_eq!((receive(&other), receive(&receiver.into_inner().unwrap())), (1, 2));
}

#[test]
fn outside_of_a_message_an_ipc_is_refused_and_stays_usable() {
    let _among = among_others();
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    let sender = Ipc::new(sender);
    assert!(postcard::to_stdvec(&sender).is_err());
    sender.into_inner().unwrap().send(1).unwrap();
    assert_eq!(receive(&receiver), 1);
}

#[test]
fn parts_of_standard_types_without_an_ipc_are_refused() {
    let _among = among_others();
    fn refuse<T: Data>(value: T) {
        let queue = Queue::new().unwrap();
        let error = queue.put(value).unwrap_err();
        assert!(error.is_encode(), "{error}");
        assert!(error.to_string().contains("multiproc::ipc::Ipc"), "{error}");
    }
    let sender = || ipc::channel::<u32>().unwrap().0;
    refuse(Some(sender()));
    refuse(vec![(1_u8, sender())]);
    refuse(Ok::<_, u8>(IpcSharedMemory::from_byte(0, 5)));
    refuse((Ipc::new(sender()), sender()));
    refuse([sender()]);
    refuse(std::collections::HashMap::from([(1, Box::new(sender()))]));

    // These name the types, and have no values of them.
    let queue = Queue::<Option<Queue<IpcSender<u32>>>>::new().unwrap();
    queue.put(Some(Queue::new().unwrap())).unwrap();
    let queue = Queue::new().unwrap();
    queue.put((std::marker::PhantomData::<IpcSender<u32>>, 1_u8)).unwrap();
}

#[test]
fn what_a_failed_encoding_of_that_crate_left_behind_goes_nowhere() {
    let _among = among_others();
    /// Notes a descriptor in that crate's list, then refuses.
    struct Refusing(IpcSender<u32>);
    impl Serialize for Refusing {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            let _ = postcard::to_stdvec(&self.0);
            Err(serde::ser::Error::custom("refused"))
        }
    }
    impl<'de> Deserialize<'de> for Refusing {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("refused"))
        }
    }
    let (stray, stray_receiver) = ipc::channel().unwrap();
    let (refusing, _receiver) = ipc::channel::<Refusing>().unwrap();
    assert!(refusing.send(Refusing(stray)).is_err());
    let (sender, receiver) = ipc::channel::<u32>().unwrap();
    finish(start(|sender: IpcSender<u32>| sender.send(1).expect("it is open"), (sender,)));
    assert_eq!(receive(&receiver), 1);
    wait_until_alone(&stray_receiver);
}

#[test]
fn many_threads_send_at_the_same_time() {
    let _among = among_others();
    let pool = Pool::builder().workers(2).build().unwrap();
    let ask = |first: u64| {
        for number in first..first + 50 {
            let (sender, receiver) = ipc::channel::<u64>().unwrap();
            let send = |sender: IpcSender<u64>, number| sender.send(number).expect("it is open");
            pool.apply(send, (sender, number)).unwrap();
            assert_eq!(receive(&receiver), number);
        }
    };
    std::thread::scope(|scope| {
        for first in [0, 1000, 2000, 3000] {
            scope.spawn(move || ask(first));
        }
    });
}

#[test]
fn processes_pass_on_what_they_were_given() {
    let _among = among_others();
    fn pass_on(sender: IpcSender<u32>, steps: u32) {
        if steps == 0 {
            return sender.send(7).expect("it is open");
        }
        finish(start(pass_on, (sender, steps - 1)));
    }
    let (sender, receiver) = ipc::channel().unwrap();
    let all = (0..2).map(|_| start(pass_on, (sender.clone(), 3)));
    finish_all(all.collect::<Vec<_>>());
    assert_eq!((receive(&receiver), receive(&receiver)), (7, 7));
}

#[test]
fn a_process_with_too_many_open_files_gets_errors_and_goes_on_when_it_has_fewer() {
    let _among = among_others();
    let work = || {
        let (sender, receiver) = ipc::channel::<u32>().expect("a channel");
        let memory = IpcSharedMemory::from_bytes(&[1, 2, 3]);
        let queue = Queue::<IpcSender<u32>>::new().expect("memory");
        let memories = Queue::<Ipc<IpcSharedMemory>>::new().expect("memory");
        let (mut failed, mut done) = (0, 0);
        for free in 0..24 {
            let packed = Ipc::new(memory.clone());
            memories.put(&packed).expect("there are enough");
            limit(lowest_free() + free);
            let put = queue.put(&sender);
            let unpacked = packed.into_inner();
            let again = memories.put(Ipc::new(IpcSharedMemory::from_bytes(&[])));
            limit(MANY);
            for error in [put.as_ref().err(), again.as_ref().err()].into_iter().flatten() {
                assert!(error.is_encode(), "{error}");
            }
            match &unpacked {
                Ok(memory) => assert_eq!(memory[..], [1, 2, 3]),
                Err(error) => assert!(error.is_os(), "{error}"),
            }
            let all = put.is_ok() && unpacked.is_ok() && again.is_ok();
            (failed, done) = (failed + u32::from(!all), done + u32::from(all));
            if put.is_ok() {
                queue.get().expect("a sender").send(free).expect("it is open");
                assert_eq!(receive(&receiver), free);
            }
        }
        (failed, done)
    };
    let (failed, done) = finish(start(work, ()));
    assert!(failed > 3 && done > 3, "{failed} {done}");
}

/// More open files than the test has.
const MANY: u32 = 256;

/// The number that the next descriptor will have.
fn lowest_free() -> u32 {
    let file = std::fs::File::open("/dev/null").expect("null");
    u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&file)).expect("a number")
}

/// Lets this process have descriptors with numbers below `end` only.
fn limit(end: u32) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write that struct only.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits);
        limits.rlim_cur = end.into();
        libc::setrlimit(libc::RLIMIT_NOFILE, &limits)
    };
    assert_eq!(result, 0);
}
