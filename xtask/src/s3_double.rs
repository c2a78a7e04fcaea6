//! moto, a double of Amazon's S3 out of Python wheels: the one from a package registry that keeps conditional writes.
//! Its own server does not when writers race, so it is run with one request at a time. It keeps everything in memory and
//! is a test program only.
//!
//! Every wheel is pinned by its hash. Those with compiled parts are for Python 3.11 on x86-64, which Debian 12 has.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::mongod::{cache_folder, clear, run};

/// What it calls itself.
pub const VERSION: &str = "5.2.5";

/// Package, version, SHA-256 of the wheel: what its S3 needs, and nothing of the other services.
const WHEELS: [(&str, &str, &str); 27] = [
    (
        "moto",
        "5.2.5",
        "eef62cdcf3bfe73e0863743511ba042dfaba04ba3d5ecdcb896a196c693ad528",
    ),
    (
        "boto3",
        "1.44.5",
        "70c3e0409794b29ec1900bcaff0695b73234a2d32ffaed35045b94caa26212a5",
    ),
    (
        "botocore",
        "1.44.5",
        "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    ),
    (
        "cryptography",
        "50.0.2",
        "9dab55f57c74c3cad24c323bacbbd04be4705ba6eb0d92e920b1fc4837ed5079",
    ),
    (
        "cffi",
        "2.1.1",
        "34e261f78cb6ceaaa36f42f2613f4380d94d9c759a9c73c769ee6e0247364632",
    ),
    (
        "pycparser",
        "3.12",
        "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e",
    ),
    (
        "requests",
        "2.34.2",
        "2a0d60c172f83ac6ab31e4554906c0f3b3588d37b5cb939b1c061f4907e278e0",
    ),
    (
        "certifi",
        "2026.10.18",
        "73191c47aaa79da394e8fee2dbc2ec827432cab56311122c9e47abf79e390f62",
    ),
    (
        "charset-normalizer",
        "3.5.2",
        "211d5a3eb6af8f513b8d4ca19a8c1b7accab1b5f0d3175f9826b03c1a920dc1f",
    ),
    (
        "idna",
        "3.20",
        "ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c",
    ),
    (
        "urllib3",
        "2.8.0",
        "0cf3cae568d36aa9576b28dfb35f11328f1cb974ca7647d9475ebb86c75ac6e3",
    ),
    (
        "werkzeug",
        "3.1.9",
        "6392e50c78460ba618e5b21f08a71f59c99ce99cdc6cf6e3dd7e6ccca8754fab",
    ),
    (
        "python-dateutil",
        "2.9.0.post0",
        "a8b2bc7bffae282281c8140a97d3aa9c14da0b136dfe83f850eea9a5f7470427",
    ),
    (
        "six",
        "1.17.0",
        "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274",
    ),
    (
        "responses",
        "0.26.3",
        "74474f799334ac4f37d93b6437ecc3bb1bb5c77a8d31780a338643be2dce0af8",
    ),
    (
        "jinja2",
        "3.1.6",
        "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67",
    ),
    (
        "markupsafe",
        "3.0.4",
        "6da83a088f8ef93b2d483a8232a4dbf4d69d3d8496b568a03c56becac43e1808",
    ),
    (
        "flask",
        "3.1.3",
        "f4bcbefc124291925f1a26446da31a5178f9483862233b23c0c96a20701f670c",
    ),
    (
        "flask-cors",
        "6.0.5",
        "68fcf75693e961f3af26683b23c4b9a8fb6b64de17d20d0c37b95e8de7ab2ed8",
    ),
    (
        "blinker",
        "1.9.0",
        "ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc",
    ),
    (
        "click",
        "8.5.1",
        "8bb5376d2006950386f8c6427613334a2acadc5f559cb80e638d00b4df957e37",
    ),
    (
        "itsdangerous",
        "2.2.0",
        "c6242fc49e35958c8b15141343aa660db5fc54d4f13a1db01a3f5891b98700ef",
    ),
    (
        "pyyaml",
        "6.0.3",
        "b8bb0864c5a28024fac8a632c443c87c5aa6f215c0b126c449ae1a150412f31d",
    ),
    (
        "py-partiql-parser",
        "0.6.3",
        "deb0769c3346179d2f590dcbde556f708cdb929059fb654bad75f4cf6e07f582",
    ),
    (
        "jmespath",
        "1.1.0",
        "a5663118de4908c91729bea0acadca56526eb2698e83de10cd116ae0f4e97c64",
    ),
    (
        "s3transfer",
        "0.19.3",
        "24eb7535804306355e31c952a90022bf5b2f9d760f9a11062c7493a217c08553",
    ),
    (
        "xmltodict",
        "1.0.4",
        "a4a00d300b0e1c59fc2bfccb53d7b2e88c32f200df138a0dd2229f842497026a",
    ),
];

/// moto looks whether an object is there and then writes it, in many threads at once; S3 does so in one step.
const SERVER: &str = r"
import sys, threading
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
service, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()
def serve(environ, start_response):
    with one_at_a_time:
        return list(service(environ, start_response))
run_simple('127.0.0.1', int(sys.argv[1]), serve, threaded=True, request_handler=MotoRequestHandler)
";

/// An installed double.
#[derive(Clone, Debug)]
pub struct S3Double {
    packages: PathBuf,
}

impl S3Double {
    /// A command that serves S3 on this port of the loopback interface until it is ended.
    pub fn command(&self, port: u16) -> Command {
        let mut command = Command::new("python3");
        command
            .args(["-c", SERVER, &port.to_string()])
            .env("PYTHONPATH", &self.packages)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

fn installed() -> Result<Option<S3Double>> {
    let packages = cache_folder()?.join("moto").join(VERSION);
    Ok(packages.is_dir().then_some(S3Double { packages }))
}

/// Answers the installed double, installing it first if it is not there yet. Blocks; safe from many processes at once.
pub fn install() -> Result<S3Double> {
    if let Some(there) = installed()? {
        return Ok(there);
    }
    let folder = cache_folder()?.join("moto");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock the cache of the double of S3")?;
    if let Some(there) = installed()? {
        return Ok(there);
    }
    let (home, draft) = (folder.join(VERSION), folder.join(".draft"));
    eprintln!("installing moto {VERSION} into {}", home.display());
    clear(&draft)?;
    let requirements = folder.join(".requirements.txt");
    let lines = WHEELS.map(|(package, version, sha256)| format!("{package}=={version} --hash=sha256:{sha256}\n"));
    fs::write(&requirements, lines.concat())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(&draft)
        .arg("--requirement")
        .arg(&requirements);
    run(
        &mut pip,
        "is the Python package index reachable, and is this Python 3.11 on x86-64?",
    )?;
    fs::rename(&draft, &home).with_context(|| format!("cannot rename to {}", home.display()))?;
    installed()?.context("the installed double vanished")
}
