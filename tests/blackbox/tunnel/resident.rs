//! A server that exposes services of its host on another one: `[[expose]]` in its configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::server::{Server, Setup};
use crate::support::tunnel::plan::Plan;
use crate::support::tunnel::program::{answer, expect_echoing};
use crate::support::tunnel::wire::TOKEN;
use crate::support::until;

/// A server whose only tunnel is the one that it is a client of.
fn exposing(server: SocketAddr, services: &str, folder: &Arc<Folder>) -> Server {
    let table = format!("[[expose]]\nserver = \"{server}\"\ntoken = {TOKEN:?}\n{services}");
    Setup::new().folder(folder).tables(&table).start()
}

fn service(name: &str, local: SocketAddr, port: u16, more: &str) -> String {
    format!("[[expose.services]]\nname = {name:?}\nlocal = \"{local}\"\nport = {port}\n{more}\n")
}

#[test]
fn services_of_the_file_get_their_ports_and_keep_them() {
    for workers in [1, 2] {
        let plan = Plan::fixed(3)
            .workers(workers)
            .folder(&Arc::new(Folder::new()));
        let mut tunnel = plan.start();
        let folder = Arc::new(Folder::new());
        let (echo, banner) = (Backend::echo(), Backend::banner("I am ssh"));
        let [web, ssh, mux] = [0, 1, 2].map(|at| tunnel.ports.start() + at);
        let services = [
            service("web", echo.address, web, ""),
            service("ssh", banner.address, ssh, ""),
            service("mux", echo.address, mux, "mux = true"),
        ];
        let publics = [web, ssh, mux].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        for round in 0..3 {
            let client = exposing(tunnel.address, &services.concat(), &folder);
            expect_echoing(publics[0]);
            expect_echoing(publics[2]);
            until("the other service answers", || {
                answer(publics[1], b"").as_deref() == Some(b"I am ssh")
            });
            if round == 1 {
                tunnel.server.kill();
                tunnel = plan.start();
                publics[..1]
                    .iter()
                    .for_each(|public| expect_echoing(*public));
            }
            client.expect_alive();
            client.stop();
        }
        // Its first client had come before its descriptors were counted.
        tunnel.server.stop();
    }
}
