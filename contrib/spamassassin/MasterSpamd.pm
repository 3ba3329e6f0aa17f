package MasterSpamd;

# Takes the place of the parent's part of spamd: loaded before it, in the template of a pool of
# master. Children are forked on order, by spamd's own spawn(), and are SpamAssassin's own from there
# on. See README.md, and master-protocol(7).
use strict;
use warnings;

use Errno qw(EAGAIN ECONNREFUSED EINTR EINVAL);
use File::Path ();
use IO::Handle;
use IO::Poll ();
use IO::Socket;
use IO::Socket::UNIX;
use Mail::SpamAssassin::Logger qw(info);
use Mail::SpamAssassin::SubProcBackChannel;
use Mail::SpamAssassin;
use POSIX ();
use Socket qw(AF_UNIX MSG_WAITALL pack_sockaddr_un sockaddr_family);

# Descriptors of the protocol.
use constant CHANNEL => 5;
use constant LISTEN => 6;
# Linux: a system call that has this number on all machines; a flag of it.
use constant SYS_clone3 => 435;
use constant CLONE_PARENT => 0x8000;
# Linux: how many bytes the other end of a socket has not read.
use constant SIOCOUTQ => 0x5411;
# How long the template waits for the master.
use constant END_TIME => 5;

my $own = $$;
my $master = getppid;
my ($directory) = ($ENV{MAIL_CONFIG} // '') =~ m{^(/.*)\z}s
    or die "spamd: not started by master\n";
my ($handle) = delete($ENV{MASTER_TEMPLATE}) =~ m{^(/proc/self/fd/\d+)\z}
    or die "spamd: not preloaded by master\n";
my ($number) = $handle =~ /(\d+)\z/;
delete $ENV{$_} for 'MAIL_CONFIG', 'GENERATION';
# A template of this master has loaded before.
my $is_first = !-e "$directory/loaded";
my ($pidfile, $waiting, $shared, @paths) = setup();
# Clients find the master's sockets by symbolic links.
my %socket_of = map { $paths[$_] => "$directory/run/public/spamd-" . ($_ + 1) } 0 .. $#paths;
my %path_of = map { pack_sockaddr_un($_) => $_ } @paths;
let_clients_in() if $is_first;
my %listeners = listeners();
# The sockets of spamd, with what it tells of each.
my @sockets;
# The template's channel, and then the child's.
my $channel;
my $is_loaded = 0;
my $generation = 0;
unlink $pidfile if $pidfile ne '' && !$is_first;

my $bind = \&IO::Socket::bind;
my $connect = \&IO::Socket::connect;
my $learner = \&Mail::SpamAssassin::finish_learner;
{
    no warnings qw(redefine once);
    # Imported into spamd's package, these take the place of Perl's own there.
    *main::fork = \&fork_child;
    *main::unlink = sub { CORE::unlink($is_loaded ? @_ : grep { !$socket_of{$_} } @_) };
    *IO::Socket::bind = \&bind_inherited;
    # Asked whether spamd runs at a path of its own already.
    *IO::Socket::connect = sub {
        return $connect->(@_) if $is_loaded || !$path_of{ $_[1] };
        $! = ECONNREFUSED;
        return;
    };
    # The last step before spamd says what its process is: for others that is the master.
    *Mail::SpamAssassin::finish_learner = sub {
        my @result = $learner->(@_);
        $$ = $master if !$is_loaded;
        return @result;
    };
    *Mail::SpamAssassin::SubProcBackChannel::setup_backchannel_parent_pre_fork = sub { };
    *Mail::SpamAssassin::SubProcBackChannel::setup_backchannel_child_post_fork = \&take_channel;
}

# A spamd that cannot load when it is started ends; later the master goes on with what it has.
END {
    if (!$is_loaded) {
        my $status = $?;
        wait_until_heard();
        if ($is_first) {
            $SIG{TERM} = 'IGNORE';
            kill TERM => $master if getppid == $master;
            my $end = time + END_TIME;
            select undef, undef, undef, 0.005 while getppid == $master && time < $end;
            clean_up();
        } elsif ($pidfile ne '') {
            write_file($pidfile, "$master\n");
        }
        $? = $status;
    }
}

# Waits until the master has read what was written to standard error, which it passes on.
sub wait_until_heard {
    my $end = time + END_TIME;
    my $unread = pack 'i', 0;
    while (time < $end && ioctl(STDERR, SIOCOUTQ, $unread) && unpack('i', $unread) > 0) {
        select undef, undef, undef, 0.005;
    }
}

sub setup {
    open my $file, '<', "$directory/start" or die "spamd: $directory/start: $!\n";
    local $/;
    my ($pidfile, $waiting, $shared, undef, $count, @rest) = map { /^(.*)\z/s } split /\0/, <$file>, -1;
    return $pidfile, $waiting, $shared, @rest[0 .. $count - 1];
}

# At first, only the owner of their directory can reach the sockets, whose mode lets all connect. Now
# they get the mode of sockets that spamd has just made, and spamd changes it.
sub let_clients_in {
    for my $socket (values %socket_of) {
        chmod 0777 & ~umask, $socket or die "spamd: $socket: $!\n";
    }
    my $sockets = "$directory/run/public";
    chmod 0755, $sockets or die "spamd: $sockets: $!\n";
}

sub write_file {
    my ($path, $text) = @_;
    open my $file, '>', $path or return warn "spamd: cannot write to $path: $!\n";
    print {$file} $text;
    close $file or warn "spamd: cannot write to $path: $!\n";
}

# The listeners that the master has, by the addresses that spamd binds. Those of paths are the last ones,
# in the order of these.
sub listeners {
    my @names = map { pack_sockaddr_un($_) } @paths;
    my %found;
    for my $descriptor (LISTEN .. $number - 1) {
        my $listener = IO::Socket->new_from_fd($descriptor, 'r+') or die "spamd: no listener: $!\n";
        my $name = getsockname $listener;
        $name = shift @names if sockaddr_family($name) == AF_UNIX;
        $found{$name} = $listener;
    }
    return %found;
}

sub bind_inherited {
    my ($own, $address) = @_;
    my $listener = $listeners{$address} or return $bind->(@_);
    POSIX::dup2(fileno $listener, fileno $own) or return;
    my $path = $path_of{$address};
    push @sockets, { socket => $own, fd => fileno $own, path => $path };
    return $own if !defined $path;
    # As if this process had made it.
    chown $>, $) + 0, $socket_of{$path};
    # Others see the path all the time.
    my $new = "$path.$$";
    symlink($socket_of{$path}, $new) && rename($new, $path) or return;
    return $own;
}

# Forks a child whenever the master orders it, and returns in each child. Never returns in the parent.
sub fork_child {
    return CORE::fork() if ((caller 1)[3] // '') ne 'main::spawn';
    $_->{socket}->blocking(0) for @sockets;
    close $_ for values %listeners;
    %listeners = ();
    $channel = IO::Socket->new_from_fd(CHANNEL, 'r+') or die "spamd: no master: $!\n";
    local $SIG{CHLD} = 'DEFAULT';
    local $SIG{HUP} = 'IGNORE';
    local $SIG{INT} = 'IGNORE';
    local $SIG{TERM} = sub { leave('TERM') };
    loaded();
    say_all($channel, "ready\n");
    my $line = '';
    while (1) {
        my $got = sysread $channel, $line, 512, length $line;
        next if !defined $got && $! == EINTR;
        leave('TERM') if !$got;
        while ($line =~ s/^([^\n]*)\n//) {
            my (undef, $name) = split ' ', $1;
            if (become_child()) {
                $generation = oct $name;
                return 0;
            }
        }
    }
}

# spamd has loaded, and written its PID file.
sub loaded {
    chdir '/' if $waiting ne '';
    $is_loaded = 1;
    write_file("$directory/loaded", $own);
    kill USR1 => $waiting if $is_first && $waiting ne '';
}

# The template ends: it does what spamd does, if the master has ended, too.
sub leave {
    my ($signal) = @_;
    $SIG{TERM} = 'IGNORE';
    my $end = time + END_TIME;
    while (getppid == $master) {
        POSIX::_exit(0) if !is_newest() || time > $end;
        select undef, undef, undef, 0.005;
    }
    POSIX::_exit(0) if !is_newest();
    # Children that are busy have the listeners, too; a signal has ended them.
    clean_up();
    main::kill_handler($signal);
}

# Removes the directory if spamd has made it. Tables written by hand stay.
sub clean_up {
    if (-e "$directory/temporary") {
        File::Path::remove_tree($directory);
    } else {
        CORE::unlink("$directory/loaded");
    }
}

# No other template has taken the place of this one.
sub is_newest {
    open my $file, '<', "$directory/loaded" or return 1;
    return <$file> eq $own;
}

# Returns true in a child that is the master's.
sub become_child {
    my $connection = IO::Socket::UNIX->new(Peer => $handle);
    my $pid = $connection ? fork_sibling() // fork_twice() : undef;
    if (defined $pid && $pid == 0) {
        become_known($connection);
        return 1;
    }
    my $error = $!;
    close $connection if $connection;
    say_all($channel, defined $pid ? "forked\n" : "failed $error\n");
    return 0;
}

# Forks a child of the same parent, in half the time: the tables of the memory are copied once. Undefined
# if the system does not allow it. No handlers of the C library run in the child. spamd has none that
# matters: OpenSSL compares process IDs.
sub fork_sibling {
    $_->flush for \*STDOUT, \*STDERR;
    my $arguments = pack 'Q8', CLONE_PARENT;
    my $pid = syscall SYS_clone3, $arguments, length $arguments;
    return $pid < 0 ? undef : $pid;
}

# The child is the master's when its own parent has ended.
sub fork_twice {
    my $pid = CORE::fork() // return;
    if ($pid == 0) {
        my $child = CORE::fork();
        return 0 if defined $child && $child == 0;
        POSIX::_exit(defined $child ? 0 : $! + 0);
    }
    waitpid $pid, 0;
    $! = $? >> 8;
    return $? ? undef : $pid;
}

# The connection becomes the child's channel.
sub become_known {
    my ($connection) = @_;
    POSIX::close($number);
    POSIX::dup2(fileno $connection, CHANNEL);
    say_all($connection, "hello\n");
    my $answer = '';
    recv $connection, $answer, 6, MSG_WAITALL;
    POSIX::_exit(0) if $answer ne "known\n";
    say_all($connection, "ready\n");
    close $connection;
    info('spamd: server successfully spawned child process, pid %s', $$);
}

sub say_all {
    my ($socket, $message) = @_;
    return (syswrite($socket, $message) // 0) == length $message;
}

# In a child, in place of the pair of sockets that spamd makes.
sub take_channel {
    my ($self) = @_;
    $channel->blocking(0);
    $channel->autoflush(1);
    $self->{parent} = $channel;
    return if !$shared;
    my $is_busy = 0;
    no warnings 'redefine';
    *main::accept_from_any_server_socket = sub {
        report(1) if $is_busy;
        my ($client, $info) = accept_shared();
        report(0);
        $is_busy = 1;
        return ($client, $info);
    };
}

# Tells the master whether this child of a shared pool is available.
sub report {
    my ($is_available) = @_;
    say_all($channel, pack 'lLl', $$, $generation, $is_available) or exit;
}

# Waits for a client of any listener; leaves when the master does, or tells it to.
sub accept_shared {
    my $poll = IO::Poll->new();
    $poll->mask($_ => IO::Poll::POLLIN()) for $channel, map { $_->{socket} } @sockets;
    while (1) {
        $poll->poll();
        exit if $poll->events($channel);
        for my $info (@sockets) {
            my $socket = $info->{socket};
            next if !$poll->events($socket);
            my $client = $socket->accept;
            return ($client, $info) if $client;
            # Another child was faster.
            next if $! == EAGAIN;
            # The listener was shut down.
            exit if $! == EINVAL;
            info('spamd: accept_a_conn: %s accept failed: %s', ref $socket,
                $socket->isa('IO::Socket::SSL') ? $socket->errstr : $!);
            return;
        }
    }
}

1;
