#!/usr/bin/perl
# SpamAssassin for spamc(1), as a child of an ordered pool: `spamd` without its process manager, for
# sites that let one master manage all processes. It checks mail with the installed rules, and makes
# no network queries.
#
#   master.cf     127.0.0.1:783 inet n n n - 5 spamd-child.pl debian-spamd
#   master.toml   [service."127.0.0.1:783/inet"]
#                 accept = "ordered"
#                 max_idle = 2
#
# It supports the commands PING, SKIP, CHECK, SYMBOLS, REPORT, REPORT_IFSPAM, HEADERS and PROCESS of
# spamd's protocol; TELL is refused, as by spamd without --allow-tell. There are no per-user
# preferences: the user that spamc names is ignored.
use strict;
use warnings;

use Getopt::Std;
use IO::Socket;
use POSIX ();

use Mail::SpamAssassin;
use Mail::SpamAssassin::SpamdForkScaling qw(:pfstates);
use Mail::SpamAssassin::SubProcBackChannel;

# spamd's --max-conn-per-child and --timeout-child, and spamc's limit on a message.
use constant CLIENTS => 200;
use constant TIMEOUT => 300;
use constant MESSAGE_MAX => 512_000;
use constant HEADERS_MAX => 8192;

# sysexits(3), by their names in the protocol.
my %code = (EX_OK => 0, EX_USAGE => 64, EX_DATAERR => 65, EX_PROTOCOL => 76);

# The master's options; "-s" is the number of listeners. Our own argument follows: a user.
my %option;
getopts('cdln:o:s:t:uvz', \%option) or die "$0: unknown option\n";
become(@ARGV ? $ARGV[0] : 'nobody');

# Expensive preparation is done before the first client.
my $assassin = Mail::SpamAssassin->new({
    local_tests_only => 1,
    dont_copy_prefs => 1,
    userprefs_filename => '/dev/null',
    home_dir_for_helpers => '/nonexistent',
});
$assassin->compile_now(0);

# Descriptor 5 is the channel to the master; the listeners begin at 6.
my $channel = Mail::SpamAssassin::SubProcBackChannel->new();
$channel->{parent} = IO::Socket->new_from_fd(5, 'r+') or die "$0: no master: $!\n";
$channel->{parent}->blocking(0);
my @listeners = map { IO::Socket->new_from_fd(6 + $_, 'r+') || die "$0: no listener: $!\n" }
    0 .. ($option{s} || 1) - 1;

my $scaling = Mail::SpamAssassin::SpamdForkScaling->new({ backchannel => $channel });
$scaling->set_my_pid($$);

for (1 .. CLIENTS) {
    $scaling->update_child_status_idle();
    $scaling->wait_for_orders();    # leaves when the master does
    my $client = accept_one();
    # Report even without a client, because another child may have been faster.
    $scaling->update_child_status_busy();
    serve($client) if $client;
}

# Accepts a client, if one waits: the listeners are non-blocking.
sub accept_one {
    for my $listener (@listeners) {
        my $client = $listener->accept();
        return $client if $client;
    }
    return;
}

sub serve {
    my ($client) = @_;
    eval {
        local $SIG{ALRM} = sub { die "timeout\n" };
        local $SIG{PIPE} = 'IGNORE';
        alarm TIMEOUT;
        $client->autoflush(1);
        print {$client} answer($client);
        1;
    } or warn "$0: $@";
    alarm 0;
    close $client;
}

# The answer to a request.
sub answer {
    my ($client) = @_;
    my $request = line($client);
    my ($command) = $request =~ m{^([A-Z_]+)\ SPAMC/\d+\.\d+$}x
        or return response('EX_PROTOCOL', "Bad header line: expected COMMAND SPAMC/VERSION");
    return response('EX_OK', 'PONG') if $command eq 'PING';
    return '' if $command eq 'SKIP';

    my ($length, $size) = (undef, 0);
    while ((my $header = line($client)) ne '') {
        $size += length $header;
        return response('EX_PROTOCOL', 'Too many headers') if $size > HEADERS_MAX;
        $length = $1 if $header =~ /^Content-length:\s*(\d{1,9})$/i;
    }
    return response('EX_USAGE', 'TELL commands are not enabled') if $command eq 'TELL';
    return response('EX_DATAERR', 'Message too big') if defined $length && $length > MESSAGE_MAX;
    my $message = message($client);
    if (defined $length && $length != length $message) {
        my $got = length $message;
        return response('EX_PROTOCOL', "Content-Length mismatch: $length promised, $got sent");
    }
    return checked($command, $message);
}

# A line of the request, without its end.
sub line {
    my ($client) = @_;
    my $line = <$client>;
    die "the client has left\n" if !defined $line;
    $line =~ s/\r?\n\z//;
    return $line;
}

# The rest of the request, up to end of file. One byte more than the limit shows that it is too
# large.
sub message {
    my ($client) = @_;
    my $message = '';
    while (length $message <= MESSAGE_MAX) {
        my $room = MESSAGE_MAX + 1 - length $message;
        my $got = read $client, $message, $room, length $message;
        die "$!\n" if !defined $got;
        last if $got == 0;
    }
    return $message;
}

sub checked {
    my ($command, $message) = @_;
    my $mail = $assassin->parse(\$message, 1);
    my $status = $assassin->check($mail);
    my $spam = $status->is_spam();
    my %body = (
        CHECK => sub { '' },
        SYMBOLS => sub { $status->get_names_of_tests_hit() . "\r\n" },
        REPORT => sub { $status->get_report() },
        REPORT_IFSPAM => sub { $spam ? $status->get_report() : '' },
        PROCESS => sub { $status->rewrite_mail() },
        HEADERS => sub { $status->rewrite_mail() =~ s/\r?\n\r?\n.*\z/\n\n/sr },
    );
    my $body = $body{$command};
    my $answer = $body
        ? response('EX_OK', undef,
            $body->(), sprintf 'Spam: %s ; %.1f / %.1f', $spam ? 'True' : 'False',
            $status->get_score(), $status->get_required_score())
        : response('EX_PROTOCOL', "Unknown command: $command");
    $status->finish();
    $mail->finish();
    return $answer;
}

sub response {
    my ($name, $words, $body, @headers) = @_;
    $words //= $name;
    $body //= '';
    my $length = 'Content-length: ' . length $body;
    unshift @headers, $length if @headers;
    return join("\r\n", "SPAMD/1.1 $code{$name} $words", @headers, '', '') . $body;
}

# Gives up root's privileges permanently.
sub become {
    my ($name) = @_;
    my ($uid, $gid, $home) = (getpwnam $name)[2, 3, 7] or die "$0: no user $name\n";
    $ENV{HOME} = $home;    # where SpamAssassin keeps what it learns
    $) = "$gid $gid";
    POSIX::setgid($gid) or die "$0: setgid: $!\n";
    POSIX::setuid($uid) or die "$0: setuid: $!\n";
}
