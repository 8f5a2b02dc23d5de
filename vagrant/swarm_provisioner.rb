# The provisioner `:swarm` of the Vagrantfile: the first machine founds the swarm, each other one joins with a token.
#
# Machines may come up in parallel and in any order. Which of them are in the swarm is remembered beside Vagrant's own
# state of a machine (`.vagrant/machines/NAME/PROVIDER/swarm`), which Vagrant removes when it destroys the machine. The
# token is asked from a manager over its ssh connection when it is needed, and kept in memory only.
module SwarmProvisioner
  WAIT_S = 900 # for a manager to join; emulated machines need minutes
  UNKNOWN_FOUNDER_S = 60 # for the first machine to be created, when all come up at once
  RETRY_S = 5
  PROGRESS_S = 20

  class Failure < Vagrant::Errors::VagrantError
    def initialize(problem)
      super
      @problem = problem
    end

    def to_s
      @problem
    end
  end

  # `role`: "manager" or "worker". `addresses`: {machine name => address} of all machines, the first is the founder.
  class Config < Vagrant.plugin("2", :config)
    attr_accessor :role, :addresses
  end

  class Provisioner < Vagrant.plugin("2", :provisioner)
    def provision
      case state = local_state
      when "active", "pending"
        @machine.ui.info("is in the swarm already")
      when "inactive"
        founder? && members.empty? ? found : join
      else
        raise Failure, "#{name}: the node's state is #{state}: " \
          "vagrant ssh #{name} -c 'swarmctl info --format \"{{.Swarm.Error}}\"' says why"
      end
      mark(name).write("")
    end

    private

    def name
      @machine.name.to_s
    end

    def founder
      config.addresses.keys.first
    end

    def founder?
      name == founder
    end

    def local_state
      ask(@machine.communicate, "swarmctl info --format '{{.Swarm.LocalNodeState}}'")
    end

    def found
      @machine.ui.info("founds the swarm")
      @machine.communicate.sudo("swarmctl swarm init --advertise-addr #{config.addresses[name]}")
    end

    def join
      started = now
      told = started
      problem = nil
      loop do
        members.each do |member|
          token = token_of(member) or next
          @machine.ui.info("joins as a #{config.role}, with the token of #{member}")
          problem = try_join(token, config.addresses[member]) or return
        end
        waited = now - started
        give_up_without_founder(waited)
        if waited > WAIT_S
          raise Failure, "#{name}: #{waiting_for(problem)} for #{WAIT_S} s; look at: vagrant ssh #{founder} -c 'journalctl -u swarmd'"
        end
        if now - told >= PROGRESS_S || told == started
          @machine.ui.info("waits: #{waiting_for(problem)} (#{waited.to_i} s)")
          told = now
        end
        sleep RETRY_S
      end
    end

    # nil when this machine joined, otherwise what went wrong.
    def try_join(token, address)
      @machine.communicate.sudo("swarmctl swarm join --token #{token} #{address}:2377")
      nil
    rescue Vagrant::Errors::VagrantError
      # The message would show the command with its token: the node is asked instead.
      local_state == "inactive" ? "a join by #{address} failed" : nil
    end

    def waiting_for(problem)
      problem || "no manager of the swarm can be asked for a token"
    end

    def give_up_without_founder(waited)
      return if founder? || !members.empty? || waited < UNKNOWN_FOUNDER_S
      return if folder(founder).join("id").file?
      raise Failure, "#{name}: there is no swarm to join, and no #{founder} that could found it: vagrant up #{founder}"
    end

    # Names of the other machines that are in the swarm, by what is remembered here.
    def members
      (config.addresses.keys - [name]).select { |other| mark(other).file? }
    end

    def mark(machine_name)
      folder(machine_name).join("swarm")
    end

    def folder(machine_name)
      @machine.env.local_data_path.join("machines", machine_name, @machine.provider_name.to_s)
    end

    # nil when that machine is no manager or cannot be asked.
    def token_of(member)
      machine = @machine.env.machine(member.to_sym, @machine.provider_name)
      return unless machine.state.id == :running
      # A connection of its own: the machine's may be in use by another thread.
      connection = Vagrant.plugin("2").manager.communicators[:ssh].new(machine)
      token = ask(connection, "swarmctl swarm join-token --quiet #{config.role}")
      token if token.start_with?("SWMTKN-")
    rescue Vagrant::Errors::VagrantError => error
      @logger.info("#{member} gives no token: #{error.message}")
      nil
    end

    def ask(connection, command)
      output = +""
      connection.sudo(command) { |stream, text| output << text if stream == :stdout }
      output.strip
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end

  class Plugin < Vagrant.plugin("2")
    name "swarmctl"
    config(:swarm, :provisioner) { Config }
    provisioner(:swarm) { Provisioner }
  end
end
