//! Tells each client what the service knows about it and about itself.
//!
//! ```text
//! 127.0.0.1:7000 inet n - n - 10 whois -o greeting=Hello
//! ```

use std::io::Write;
use std::process::ExitCode;

use nix::unistd::{getegid, geteuid};

fn main() -> ExitCode {
    services::run(|mut service| {
        let greeting = service.string("greeting", "This is $service_name of $myhostname.")?;
        let limit = service.time("whois_timeout", "1m")?;
        let log = service.log();
        service.single(move |client| {
            client.set_timeout(limit);
            log.info(format!("asked by {}", client.peer()));
            let mut answer = format!("{greeting}\nYou are {}.\n", client.peer());
            for (name, value) in client.attributes() {
                answer += &format!("Your {name} is {value}.\n");
            }
            let directory = std::env::current_dir()?;
            let (user, group) = (geteuid(), getegid());
            answer += &format!(
                "I am user {user} of group {group}, in {}.\n",
                directory.display()
            );
            client.write_all(answer.as_bytes())
        })
    })
}
