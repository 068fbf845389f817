//! How a PHP repo is served: Apache's configuration, written into the checkout's own folder.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use sdp_core::{DeployJob, NetworkMode};

use crate::build::own_folder;

/// Where the document root of `php:*-apache` images is.
const HTML: &str = "/var/www/html";

/// Where a checkout is mounted in an Apache+PHP container.
pub(crate) fn checkout_mount(job: &DeployJob) -> String {
    format!("{HTML}/{}", job.repo.name)
}

/// The URL prefix with a slash at both ends.
pub(crate) fn prefix(job: &DeployJob) -> String {
    match job.repo.url_prefix.as_deref().unwrap_or("/").trim_matches('/') {
        "" => "/".into(),
        inner => format!("/{inner}/"),
    }
}

/// The configuration of the job's Apache: the files' names and texts, and where they are mounted.
pub(crate) fn files(job: &DeployJob, publish: IpAddr) -> [(&'static str, String, &'static str); 2] {
    let listen = match job.repo.network {
        NetworkMode::Bridge => format!("Listen {}\n", job.repo.container_port),
        NetworkMode::Host => format!("Listen {}\n", std::net::SocketAddr::new(publish, job.host_port.get())),
    };
    let site = site(&prefix(job), Path::new(&checkout_mount(job)));
    [
        ("ports.conf", listen, "/etc/apache2/ports.conf"),
        ("site.conf", site, "/etc/apache2/sites-enabled/000-default.conf"),
    ]
}

/// Writes the configuration of the job's Apache and answers what to mount where.
pub(crate) fn write(job: &DeployJob, publish: IpAddr) -> io::Result<Vec<(PathBuf, &'static str)>> {
    let folder = own_folder(&job.checkout.path).join("apache");
    fs::create_dir_all(&folder)?;
    files(job, publish)
        .into_iter()
        .map(|(name, text, target)| {
            // A container that still runs has the old file mounted: it is replaced, never rewritten,
            // so that a reload of that container meets what it was started with.
            let (partial, path) = (folder.join(format!("{name}.partial")), folder.join(name));
            fs::write(&partial, text)?;
            fs::rename(partial, &path)?;
            Ok((path, target))
        })
        .collect()
}

fn site(prefix: &str, checkout: &Path) -> String {
    let checkout = checkout.display();
    let serve = match prefix {
        "/" => format!("    DocumentRoot {checkout}\n"),
        prefix => format!("    DocumentRoot {HTML}\n    Alias {} {checkout}\n", prefix.trim_end_matches('/')),
    };
    format!(
        "<VirtualHost *:*>\n{serve}    <Directory {checkout}>\n        Options FollowSymLinks\n        \
         AllowOverride All\n        Require all granted\n    </Directory>\n    \
         <DirectoryMatch \"/\\.(git|sdp)(/|$)\">\n        Require all denied\n        \
         <FilesMatch \"^probe-[0-9a-z]+\\.php$\">\n            Require all granted\n        </FilesMatch>\n    \
         </DirectoryMatch>\n\
         </VirtualHost>\n"
    )
}
