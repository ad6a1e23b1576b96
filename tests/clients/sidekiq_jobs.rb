# Sidekiq 6, unmodified, against a running server: `sidekiq_jobs.rb PORT [TLS-PORT CERTIFICATES UNIX-SOCKET]`. The last
# line counts what was tried. Its server runs in this process, as `sidekiq` would run it; it speaks through the unix
# socket where one is given, and clients through the port.

# A process that has the command line's class is a server to Sidekiq, with pools for one.
require "sidekiq/cli"
require "sidekiq/api"
require "sidekiq/launcher"

PORT = Integer(ARGV[0])
UNIX = ARGV[3]

Sidekiq.logger.level = Logger::FATAL
Sidekiq.redis = UNIX ? {path: UNIX, size: 30} : {url: "redis://127.0.0.1:#{PORT}/0", size: 30}
CLIENT = ConnectionPool.new(size: 5) { Redis.new(port: PORT) }

def redis(&block) = CLIENT.with(&block)

class Count
  include Sidekiq::Worker

  def perform(n) = redis { |r| r.hincrby("runs", n, 1) }
end

class FailsUntil
  include Sidekiq::Worker

  def perform(name, times)
    tries = redis { |r| r.incr("tries:#{name}") }
    raise "try #{tries}" if tries < times
    redis { |r| r.sadd?("done", name) }
  end
end

class FailsAtOnce
  include Sidekiq::Worker
  sidekiq_options retry: 0

  def perform(name)
    raise "dead" if redis { |r| r.incr("deaths:#{name}") } == 1
    redis { |r| r.sadd?("done", name) }
  end
end

class Notes
  include Sidekiq::Worker

  def perform(word) = redis { |r| r.rpush("notes", word) }
end

class Sleeps
  include Sidekiq::Worker

  def perform(name)
    redis { |r| r.rpush("asleep", name) }
    sleep(60)
  end
end

def check(what, got, wanted) = got == wanted || raise("#{what}: #{got.inspect} instead of #{wanted.inspect}")

def wait_until(what)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
  until yield
    raise "waited in vain until #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.02
  end
end

# Runs jobs until the block has returned.
def serving(concurrency: 10, queues: ["default"], strict: true, timeout: 8)
  options = Sidekiq.options.merge(concurrency: concurrency, queues: queues, strict: strict, timeout: timeout)
  launcher = Sidekiq::Launcher.new(options)
  launcher.run
  yield
ensure
  launcher.stop
end

def test_thousands_of_jobs_run_once
  1000.times { |i| Count.perform_async(i) }
  ids = Sidekiq::Client.push_bulk("class" => Count, "args" => (1000...3000).map { |i| [i] })
  check "ids", ids.uniq.size, 2000
  check "waiting", Sidekiq::Queue.new.size, 3000
  check "the first", Sidekiq::Queue.new.map { |job| job.args[0] }.min, 0
  serving { wait_until("all have run, and are counted") { Sidekiq::Stats.new.processed >= 3000 } }
  runs = redis { |r| r.hgetall("runs") }
  check "jobs", runs.size, 3000
  check "runs", runs.values.uniq, ["1"]
  check "waiting", Sidekiq::Stats.new.enqueued, 0
  check "failed", Sidekiq::Stats.new.failed, 0
  check "today", Sidekiq::Stats::History.new(1).processed.values, [Sidekiq::Stats.new.processed]
end

def test_retries
  20.times { |i| FailsUntil.perform_async("job#{i}", 3) }
  serving do
    (1..2).each do |failures|
      tries = -> { redis { |r| r.keys("tries:*").sum { |key| r.get(key).to_i } } }
      wait_until("all have failed") { tries.call == 20 * failures && Sidekiq::RetrySet.new.size == 20 }
      # One that is tried again by hand is not counted as another.
      check "counts", Sidekiq::RetrySet.new.map { |job| job["retry_count"] }.uniq, [0]
      check "errors", Sidekiq::RetrySet.new.map { |job| job["error_message"] }.uniq, ["try #{failures}"]
      check "found by its id", Sidekiq::RetrySet.new.find_job(Sidekiq::RetrySet.new.first.jid).nil?, false
      # `retry_all` would go on while there are any, and try those that fail meanwhile again.
      Sidekiq::RetrySet.new.to_a.each(&:retry)
    end
    wait_until("all are done") { redis { |r| r.scard("done") } == 20 }
  end
  check "retries", Sidekiq::RetrySet.new.size, 0
end

def test_the_dead_rise_again
  5.times { |i| FailsAtOnce.perform_async("job#{i}") }
  serving do
    wait_until("all are dead") { Sidekiq::DeadSet.new.size == 5 }
    check "waiting to be tried again", Sidekiq::RetrySet.new.size, 0
    Sidekiq::DeadSet.new.first.delete
    check "dead", Sidekiq::DeadSet.new.size, 4
    Sidekiq::DeadSet.new.retry_all
    wait_until("they are done") { redis { |r| r.scard("done") } == 4 }
  end
  check "dead", Sidekiq::DeadSet.new.size, 0
end

def test_jobs_for_later
  Notes.perform_in(2, "later")
  Notes.perform_at(Time.now + 1, "soon")
  never = Notes.perform_in(3600, "never")
  check "scheduled", Sidekiq::ScheduledSet.new.map { |job| job.args[0] }, %w[never later soon]
  serving do
    wait_until("two have run") do
      # What its poller does every few seconds.
      Sidekiq::Scheduled::Enq.new.enqueue_jobs
      redis { |r| r.lrange("notes", 0, -1) }.sort == %w[later soon]
    end
  end
  check "scheduled", Sidekiq::ScheduledSet.new.map(&:jid), [never]
  check "deleted", Sidekiq::ScheduledSet.new.find_job(never).delete, true
  check "scheduled", Sidekiq::ScheduledSet.new.size, 0
end

def test_queues_in_their_order
  10.times { |i| Notes.set(queue: "low").perform_async("low#{i}") }
  10.times { |i| Notes.set(queue: "critical").perform_async("critical#{i}") }
  check "queues", Sidekiq::Queue.all.map { |queue| [queue.name, queue.size] }.sort, [["critical", 10], ["low", 10]]
  serving(concurrency: 1, queues: %w[critical low]) { wait_until("all have run") { redis { |r| r.llen("notes") } == 20 } }
  wanted = %w[critical low].flat_map { |name| (0...10).map { |i| "#{name}#{i}" } }
  check "order", redis { |r| r.lrange("notes", 0, -1) }, wanted
end

def test_what_is_under_way_at_the_end_is_put_back
  3.times { |i| Sleeps.perform_async("job#{i}") }
  # Longer than idle threads wait for jobs, or one would fetch what is put back.
  serving(timeout: 3) do
    wait_until("all sleep") { redis { |r| r.llen("asleep") } == 3 }
    wait_until("the process tells of them") { Sidekiq::Workers.new.size == 3 }
    process = Sidekiq::ProcessSet.new.first
    check "busy", process["busy"], 3

  end
  check "put back", Sidekiq::Queue.new.map { |job| job.args[0] }.sort, %w[job0 job1 job2]
  check "processes", Sidekiq::ProcessSet.new.size, 0
end

passed = failed = 0
private_methods.grep(/^test_/).sort.each do |name|
  began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  begin
    redis(&:flushall)
    send(name)
    passed += 1
    puts format("%s: ok, %.2f s", name, Process.clock_gettime(Process::CLOCK_MONOTONIC) - began)
  rescue => error # the next one is worth running all the same
    failed += 1
    puts "#{name}: #{error.full_message(highlight: false)}"
  end
end
puts "#{passed} passed, #{failed} failed"
exit(failed.zero?)
