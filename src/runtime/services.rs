//! What each service has of the system: its listeners, programs that are ready to run, and the set
//! of its children's status channels. The policy's table has the same services at the same places.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::output::Rate;
use super::progress::Remembered;
use super::status::ReportSet;
use super::token::Token;
use crate::config::{Kind, ListenAddress, RunOptions, Service};
use crate::log::About;
use crate::policy::{Limiter, Pid, Plan, ServiceId};
use crate::protocol;
use crate::sys::file;
use crate::sys::hangups::Hangups;
use crate::sys::listen::{self, Listener};
use crate::sys::poll::{Interest, Poll};
use crate::sys::queues::Queues;
use crate::sys::spawn::Program;

/// The listeners of a service, in the order of its [addresses](Service::listen_addresses). A reload may give one to
/// another service; it is closed when no service has it.
pub(super) type Listeners = Vec<Arc<Listener>>;

/// Closes listeners that no other service has, also for the children that have them.
pub(super) fn close_listeners(listeners: Listeners) {
    close_within(listeners, listen::SHUTDOWN_TIME);
}

/// Closes listeners that no other service has, and waits for at most `limit`.
fn close_within(listeners: Listeners, limit: Duration) {
    listen::close(listeners.into_iter().filter_map(Arc::into_inner), limit);
}

/// A service's program, as it is executed with this number of listeners. With a sandbox it is `executor`,
/// which executes the service's own.
///
/// # Errors
/// A zero byte in an argument, which the configuration does not let through; descriptors have run
/// out.
pub(super) fn program(
    service: &Service,
    run: RunOptions,
    executor: &Path,
    stress: bool,
    listeners: usize,
    group: Option<&Path>,
) -> io::Result<Program> {
    let argv = service.argv(run, stress).into_iter();
    let argv = argv.map(|argument| CString::new(argument.into_vec()));
    let mut argv: Vec<_> = argv.collect::<Result<_, _>>()?;
    let mut path = CString::new(service.path.as_os_str().as_bytes())?;
    let mut settings = None;
    if service.needs_executor() {
        let mut sandbox = service.sandbox().cloned().unwrap_or_default();
        sandbox.control_group = group.map(|path| path.display().to_string());
        let bytes = sandbox.encode().ok_or(io::ErrorKind::FileTooLarge)?;
        settings = Some(file::sealed(c"settings", &bytes)?);
        let number = protocol::LISTEN as usize + listeners;
        argv.splice(..0, [CString::new(number.to_string())?, path]);
        path = CString::new(executor.as_os_str().as_bytes())?;
    }
    Ok(Program {
        path,
        argv,
        settings,
    })
}

/// All that one service has.
#[derive(Debug)]
pub(super) struct ServiceIo {
    pub(super) service: Arc<Service>,
    pub(super) listeners: Listeners,
    /// Without and with stress, made when first needed.
    programs: [Option<Arc<Program>>; 2],
    /// What the poller was last told about the listeners, if they are in its set.
    interest: Option<Interest>,
    /// What only a service has that has had children.
    pub(super) activity: Option<Box<Activity>>,
}

/// What a service has that has had children.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// The children's status channels, while there are any.
    pub(super) reports: Option<ReportSet>,
    /// Lines of output that were logged.
    pub(super) output: Rate,
    /// Last words that were logged.
    pub(super) last_words: Rate,
    /// Children of a program that works that have a socket for their last words.
    pub(super) with_last_words: Limiter<10, 1>,
    /// How often a listener was made to listen again that a child had shut down. Where that is too
    /// often, the service is throttled.
    pub(super) listened_again: Limiter<8, 1>,
    /// A listener of the service manager is about to listen again; readable when that is done.
    pub(super) listening_again: Option<OwnedFd>,
    /// What is known of the clients of a service of which a child has ended at once.
    pub(super) remembered: Option<Box<Remembered>>,
}

impl ServiceIo {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            listeners: Vec::new(),
            programs: [None, None],
            interest: None,
            activity: None,
        }
    }

    pub(super) fn is_preloaded(&self) -> bool {
        self.service.pool().preload
    }

    pub(super) fn activity(&mut self) -> &mut Activity {
        self.activity.get_or_insert_default()
    }

    /// The set of the children's status channels, if there is one.
    pub(super) fn reports(&mut self) -> Option<&mut ReportSet> {
        self.activity.as_mut()?.reports.as_mut()
    }

    /// Has the poller report clients that wait, or only that a listener was shut down.
    ///
    /// # Errors
    /// The system's: its limit on watched descriptors, say.
    fn set_interest(
        &mut self,
        id: ServiceId,
        interest: Interest,
        sets: Sets<'_>,
    ) -> io::Result<()> {
        if self.interest == Some(interest) {
            return Ok(());
        }
        let key = Token::Listener(id).key();
        let known = self.interest.replace(interest).is_some();
        let set = self.by_address().try_for_each(|(address, listener)| {
            if known {
                return sets.poll.modify(listener.as_fd(), key, interest);
            }
            if address.is_path() && self.service.kind != Kind::Fifo {
                sets.hangups.add(listener, id.index())?;
            }
            sets.poll.add(listener.as_fd(), key, interest)
        });
        if set.is_err() {
            self.forget(sets);
        }
        set
    }

    /// Has nothing reported of the listeners. Whether clients were to be reported.
    fn forget(&mut self, sets: Sets<'_>) -> bool {
        let interest = self.interest.take();
        if interest.is_some() {
            for listener in &self.listeners {
                // One that could not be added is not in the set; TCP listeners are in one only.
                let _ = sets.poll.remove(listener);
                let _ = sets.hangups.remove(listener);
            }
        }
        interest == Some(Interest::Readable)
    }

    /// Each listener with its address.
    pub(super) fn by_address(&self) -> impl Iterator<Item = (ListenAddress<'_>, &Arc<Listener>)> {
        self.service.listen_addresses().zip(&self.listeners)
    }

    /// Whether it listens at a path.
    pub(super) fn has_path(&self) -> bool {
        self.service.listen_addresses().any(|a| a.is_path())
    }

    /// The clients that wait, at paths according to `queues`, if the system tells.
    pub(super) fn backlog(&self, queues: &Queues) -> Option<u32> {
        let waiting = self.by_address().map(|(address, listener)| match address {
            ListenAddress::Path(_) => queues.waiting(listener),
            ListenAddress::Inet(_) => listener.waiting(),
        });
        waiting.sum()
    }

    /// The clients that wait, now that a listener is ready. In an ordered pool they are counted:
    /// none may be left. Where the system does not tell, as of paths, it is one.
    pub(super) fn clients(&self) -> u32 {
        if !self.service.is_ordered() {
            return 1;
        }
        let addresses = self.by_address().filter(|(address, _)| !address.is_path());
        let waiting: Option<u32> = addresses.map(|(_, listener)| listener.waiting()).sum();
        waiting.unwrap_or(1).max(self.has_path().into())
    }

    /// Whether clients find the listeners where the service is to listen: it does so already, and no
    /// path was removed or replaced.
    pub(super) fn is_found_as(&self, service: &Service) -> bool {
        self.service.has_same_listeners(service) && self.by_address().all(is_found)
    }

    /// The service's [program], made when it is first needed.
    ///
    /// # Errors
    /// As [program].
    pub(super) fn program(
        &mut self,
        run: RunOptions,
        executor: &Path,
        stress: bool,
        group: Option<&Path>,
    ) -> io::Result<Arc<Program>> {
        let made = &self.programs[usize::from(stress)];
        if let Some(program) = made {
            return Ok(program.clone());
        }
        let listeners = self.listeners.len();
        let made = Arc::new(self::program(
            &self.service,
            run,
            executor,
            stress,
            listeners,
            group,
        )?);
        self.programs[usize::from(stress)] = Some(made.clone());
        Ok(made)
    }

    /// Puts other listeners in the place of those there are, which are returned.
    fn replace_listeners(&mut self, listeners: Listeners) -> Listeners {
        self.forget_waiting();
        std::mem::replace(&mut self.listeners, listeners)
    }

    /// Puts a listener in the place of one that a child has shut down.
    pub(super) fn set_listener(&mut self, place: usize, listener: Listener) {
        self.forget_waiting();
        let former = std::mem::replace(&mut self.listeners[place], Arc::new(listener));
        if let Some(former) = Arc::into_inner(former) {
            former.abandon();
        }
    }

    /// The listeners are others, and so are the clients that wait.
    fn forget_waiting(&mut self) {
        if let Some(activity) = &mut self.activity {
            activity.remembered = None;
        }
    }

    /// Closes the listeners, also for children that do not leave.
    fn close(mut self, sets: Sets<'_>) {
        self.forget(sets);
        if let Some(reports) = self.reports() {
            let _ = sets.poll.remove(reports);
        }
        close_listeners(self.listeners);
    }
}

/// Whether clients find a listener.
pub(super) fn is_found((address, listener): (ListenAddress<'_>, &Arc<Listener>)) -> bool {
    match address {
        ListenAddress::Path(path) => listener.is_found_at(path),
        ListenAddress::Inet(_) => listener.is_listening(),
    }
}

/// The sets that a service's listeners are in.
#[derive(Clone, Copy)]
struct Sets<'a> {
    poll: &'a Poll,
    hangups: &'a Hangups,
}

/// All services, by their places in the policy's table.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) places: Vec<Option<ServiceIo>>,
    /// The listeners that are local sockets, and may be shut down.
    hangups: Hangups,
}

impl Services {
    /// # Errors
    /// The system's, when descriptors have run out.
    pub(super) fn new(poll: &Poll) -> io::Result<Self> {
        let hangups = Hangups::new()?;
        poll.add(hangups.as_fd(), Token::Hangups.key(), Interest::Readable)?;
        Ok(Self {
            places: Vec::new(),
            hangups,
        })
    }

    pub(super) fn get(&self, id: ServiceId) -> Option<&ServiceIo> {
        self.places.get(id.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ServiceId) -> Option<&mut ServiceIo> {
        self.places.get_mut(id.index())?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ServiceId, &ServiceIo)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(index, io)| Some((ServiceId::from_index(index), io.as_ref()?)))
    }

    /// A service, and the sets that its listeners are in.
    fn with_sets<'a>(
        &'a mut self,
        id: ServiceId,
        poll: &'a Poll,
    ) -> Option<(&'a mut ServiceIo, Sets<'a>)> {
        let hangups = &self.hangups;
        let io = self.places.get_mut(id.index())?.as_mut()?;
        Some((io, Sets { poll, hangups }))
    }

    /// Has the poller report clients that wait.
    ///
    /// # Errors
    /// The system's: its limit on watched descriptors, say.
    pub(super) fn watch(&mut self, id: ServiceId, poll: &Poll) -> io::Result<()> {
        self.with_sets(id, poll).map_or(Ok(()), |(io, sets)| {
            io.set_interest(id, Interest::Readable, sets)
        })
    }

    /// Has the poller report clients no longer. It still reports that a listener was shut down.
    pub(super) fn unwatch(&mut self, id: ServiceId, poll: &Poll) {
        if let Some((io, sets)) = self.with_sets(id, poll) {
            if io.interest.is_some() {
                // What is reported in spite of this changes nothing.
                let _ = io.set_interest(id, Interest::Hangup, sets);
            }
        }
    }

    /// Has the poller report that a listener was shut down, where it reports nothing yet.
    pub(super) fn watch_hangup(&mut self, id: ServiceId, poll: &Poll) {
        if let Some((io, sets)) = self.with_sets(id, poll) {
            if io.interest.is_none() {
                // Where the system refuses it, the next reload tries again.
                let _ = io.set_interest(id, Interest::Hangup, sets);
            }
        }
    }

    /// Has the poller report listeners that were shut down of all services, also of those whose
    /// children all wait for clients.
    pub(super) fn watch_hangups(&mut self, poll: &Poll) {
        for index in 0..self.places.len() {
            self.watch_hangup(ServiceId::from_index(index), poll);
        }
    }

    /// Has nothing reported of a service's listeners. Whether clients were to be reported.
    pub(super) fn forget(&mut self, id: ServiceId, poll: &Poll) -> bool {
        self.with_sets(id, poll)
            .is_some_and(|(io, sets)| io.forget(sets))
    }

    /// The services of which a local listener was shut down.
    pub(super) fn hung_up(&self) -> Vec<ServiceId> {
        // Where the system does not say which, the next turn asks again.
        let keys = self.hangups.take().unwrap_or_default();
        keys.into_iter().map(ServiceId::from_index).collect()
    }

    /// Closes all that a service has.
    pub(super) fn close(&mut self, id: ServiceId, poll: &Poll) {
        let place = self.places.get_mut(id.index());
        if let Some(io) = place.and_then(Option::take) {
            let hangups = &self.hangups;
            io.close(Sets { poll, hangups });
        }
    }

    /// Has no service listen at TCP addresses any more, also for children that finish with their
    /// clients: the next master listens there at once, and must find them free.
    pub(super) fn close_addresses(&mut self, poll: &Poll, limit: Duration) {
        let hangups = &self.hangups;
        let services = self.places.iter_mut().flatten();
        let services = services.filter(|io| io.service.kind == Kind::Inet);
        let listeners = services.flat_map(|io| {
            io.forget(Sets { poll, hangups });
            std::mem::take(&mut io.listeners)
        });
        close_within(listeners.collect(), limit);
    }

    /// Drops what services keep for children that they do not have.
    pub(super) fn trim(&mut self, poll: &Poll) {
        for io in self.places.iter_mut().flatten() {
            let activity = io.activity.as_mut();
            let reports = activity.map(|activity| &mut activity.reports);
            let unused = reports.and_then(|reports| reports.take_if(|set| set.is_empty()));
            if let Some(reports) = unused {
                let _ = poll.remove(&reports);
            }
        }
    }

    /// Takes over a plan's services and the listeners that were opened for them. What the plan
    /// removes is closed when the policy says so.
    pub(super) fn commit(
        &mut self,
        plan: &Plan,
        opened: Vec<(ServiceId, Listeners)>,
        poll: &Poll,
    ) -> Replaced {
        self.make_places(plan);
        let mut replaced = Replaced::default();
        for &id in &plan.removed {
            self.forget(id, poll);
        }
        for entry in &plan.entries {
            if let Some(io) = self.get_mut(entry.id) {
                io.service = entry.service.clone();
                io.programs = [None, None];
            }
        }
        for (id, listeners) in opened {
            if self.forget(id, poll) {
                replaced.unwatched.push(id);
            }
            let former = self.get_mut(id).map(|io| io.replace_listeners(listeners));
            replaced.listeners.extend(former.unwrap_or_default());
        }
        replaced
    }

    fn make_places(&mut self, plan: &Plan) {
        let ids = plan.entries.iter().map(|entry| entry.id.index());
        let places = ids.max().map_or(0, |last| last + 1);
        if self.places.len() < places {
            self.places.resize_with(places, || None);
        }
        for entry in &plan.entries {
            self.places[entry.id.index()]
                .get_or_insert_with(|| ServiceIo::new(entry.service.clone()));
        }
    }
}

/// What is left to do once a plan is carried out.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    /// Services whose listeners are to be watched again.
    pub(super) unwatched: Vec<ServiceId>,
    /// Listeners to [close](close_listeners) once the children that have them were told to leave.
    pub(super) listeners: Listeners,
}

/// That messages are about a service.
pub(super) fn about(service: &Service) -> About<'_> {
    About {
        service: Some((&service.name, service.kind.as_str())),
        child: None,
    }
}

/// That messages are about a child of a service.
pub(super) fn about_child(service: &Service, pid: Pid) -> About<'_> {
    About {
        child: Some(pid),
        ..about(service)
    }
}

/// How messages name a service.
pub(super) fn described(service: &Service) -> String {
    format!("service \"{}\" ({})", service.name, service.canonical)
}
