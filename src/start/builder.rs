//! The settings that processes and pools have in common, as builder methods.

/// Adds the common builder methods to a builder with a field `launch: Launch`.
macro_rules! launch_settings {
    () => {
        /// Sets an environment variable of the child.
        pub fn env(
            mut self,
            name: impl AsRef<std::ffi::OsStr>,
            value: impl AsRef<std::ffi::OsStr>,
        ) -> Self {
            self.launch.environment.set(name.as_ref(), value.as_ref());
            self
        }

        /// Removes an environment variable from the child.
        pub fn env_remove(mut self, name: impl AsRef<std::ffi::OsStr>) -> Self {
            self.launch.environment.remove(name.as_ref());
            self
        }

        /// Removes all environment variables from the child, also those set before this call.
        pub fn env_clear(mut self) -> Self {
            self.launch.environment.clear();
            self
        }

        /// Sets the niceness of the child: -20 (most favoured) to 19, as setpriority(2) takes it.
        pub fn nice(mut self, nice: i32) -> Self {
            self.launch.settings.nice = Some(nice);
            self
        }

        /// Limits the address space of the child to `bytes` (`RLIMIT_AS`): an allocation beyond
        /// it fails, which aborts a Rust program.
        pub fn memory_limit(self, bytes: u64) -> Self {
            self.limit(libc::RLIMIT_AS, bytes)
        }

        /// Limits the processor time of the child, rounded up to seconds (`RLIMIT_CPU`): the
        /// system kills it when it has used as much.
        pub fn cpu_time_limit(self, limit: std::time::Duration) -> Self {
            let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
            self.limit(libc::RLIMIT_CPU, seconds)
        }

        /// Limits the number of descriptors of the child (`RLIMIT_NOFILE`).
        pub fn open_files_limit(self, count: u64) -> Self {
            self.limit(libc::RLIMIT_NOFILE, count)
        }

        /// Limits the size of a core dump of the child to `bytes` (`RLIMIT_CORE`); 0 for none.
        pub fn core_limit(self, bytes: u64) -> Self {
            self.limit(libc::RLIMIT_CORE, bytes)
        }

        fn limit(mut self, resource: libc::__rlimit_resource_t, value: u64) -> Self {
            self.launch.settings.limits.push((resource, value));
            self
        }

        /// How long the child may take from its start until it says hello (30 s unless set). One
        /// that takes longer is killed, and the start is an error.
        pub fn start_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.launch.start_timeout = timeout;
            self
        }

        /// Allows `StartMethod::Fork` while this process has other threads.
        pub fn fork_with_threads(mut self, risk: $crate::ForkRisk) -> Self {
            self.launch.fork_risk = Some(risk);
            self
        }
    };
}

pub(crate) use launch_settings;
