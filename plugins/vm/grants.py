"""Tables: what the XML of a VM may have without any grant, and what each grant of pvc.vm.host_access opens."""

from __future__ import annotations

from typing import NamedTuple

FREE = r"""
domain id type
  name|uuid|genid #
  title|description #=.*
  metadata ANY
  memory # unit dumpCore
  currentMemory # unit
  maxMemory # unit slots
  memoryBacking
    hugepages
      page size unit nodeset
    nosharepages|discard
    access mode
    allocation mode threads=COUNT
    source type=anonymous|memfd
  vcpu # current placement=static
  vcpus
    vcpu id enabled hotpluggable order
  iothreads #=COUNT
  iothreadids
    iothread id thread_pool_min=COUNT thread_pool_max=COUNT
  defaultiothread thread_pool_min=COUNT thread_pool_max=COUNT
  cputune
    period|quota|global_period|global_quota|emulator_period|emulator_quota|iothread_period|iothread_quota #
  os firmware
    type #=hvm arch machine
    firmware
      feature enabled name
    loader #=PACKAGED readonly!=yes secure stateless type
    nvram #=FILE template=PACKAGED type=file
      source file=FILE
    kernel|initrd|dtb #=PACKAGED
    cmdline #=.*
    acpi
      table #=PACKAGED type
    boot dev
    bootmenu enable timeout
    smbios mode=emulate|sysinfo
    bios useserial rebootTimeout
  sysinfo type
    bios|system|baseBoard|chassis|oemStrings
      entry #=.* name
    entry #=.* name=opt/[A-Za-z0-9._/-]+ file=PACKAGED
  features
    acpi|pae|viridian
    apic eoi
    hap|pmu|pvspinlock|vmport|vmcoreinfo|htm|nested-hv|ccf-assist state
    cfpc|sbbc|ibs value
    gic version
    hpt resizing
      maxpagesize # unit
    ioapic driver
    msrs unknown
    smm state
      tseg # unit
    tcg
      tb-cache # unit
    hyperv mode
      relaxed|vapic|vpindex|runtime|synic|reset|frequencies|reenlightenment|tlbflush|ipi|evmcs|avic state
      spinlocks state retries
      vendor_id state value
      stimer state
        direct state
    kvm
      hidden|hint-dedicated|poll-control|pv-ipi state
      dirty-ring state size
  cpu mode match check migratable
    model # fallback vendor_id
    vendor #
    topology sockets dies cores threads
    cache level mode
    maxphysaddr bits mode
    feature name policy
    numa
      cell id cpus memory unit memAccess discard
        distances
          sibling id value
        cache associativity level policy
          line|size unit value
      interconnects
        bandwidth|latency cache initiator target type unit value
  clock offset basis adjustment start timezone=[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*
    timer name present tickpolicy track frequency mode
      catchup threshold slew limit
  on_poweroff|on_reboot|on_crash #=destroy|restart|preserve|rename-restart
  on_lockfailure #
  pm
    suspend-to-mem|suspend-to-disk enabled
  keywrap
    cipher name state
  devices
    emulator #=/usr/(bin/qemu-system-[a-z0-9_]+|bin/kvm|bin/qemu-kvm|libexec/qemu-kvm)
    disk device=disk|cdrom|floppy model snapshot type=network|file|block|dir|volume
      +device
      driver +virtio name type=raw cache io discard detect_zeroes error_policy rerror_policy
      driver copy_on_read iothread queues queue_size ioeventfd event_idx
        metadata_cache
          max_size # unit
      source protocol=rbd name=VOLUME file=FILE dir=FILE startupPolicy index
        snapshot name
      backingStore
      target dev bus tray removable rotation_rate
      readonly|shareable
      serial|vendor|product #=.*
      wwn #
      geometry cyls heads secs trans
      blockio logical_block_size physical_block_size
      iotune
        * #
    controller type index model ports vectors
      +device
      driver +virtio queues cmd_per_lun max_sectors ioeventfd iothread
      model name
      target busNr chassis chassisNr hotplug index port
        node #
      pcihole64 # unit
      master startport
    interface type=bridge|null
      +device
      mac address check type
      source bridge=vmbr[1-9][0-9]{0,7}
      target dev=vnet[0-9]+
      model type
      driver +virtio name=qemu|vhost txmode ioeventfd event_idx queues rx_queue_size tx_queue_size rss rss_hash_report
        host csum gso tso4 tso6 ecn ufo mrg_rxbuf
        guest csum tso4 tso6 ecn ufo
      link state
      port isolated
      bandwidth
        inbound|outbound average peak burst floor
      tune
        sndbuf #
      rom bar enabled file=PACKAGED
      filterref filter=no-[a-z0-9-]+|clean-traffic(-gateway)?
        parameter name value
    serial|parallel|console|channel type=CHARACTERS
      +device
      source mode=bind channel
        clipboard copypaste
        mouse mode
      protocol type=raw
      target type port name state
        model name
    smartcard mode=passthrough type=spicevmc
      +device
    redirdev bus type=spicevmc
      +device
    redirfilter
      usbdev class vendor product version allow
    graphics type=vnc|spice autoport port=PORT tlsPort=PORT websocket=PORT listen=LOOPBACK passwd=.* passwdValidTo
    graphics keymap connected sharePolicy powerControl defaultMode
      listen type=address|none|socket address=LOOPBACK
      channel name mode
      image|jpeg|zlib|playback compression
      streaming|mouse mode
      clipboard copypaste
      filetransfer enable
      audio id
    video
      +device
      driver +virtio name=qemu vgaconf
      model type heads primary ram vram vram64 vgamem
        acceleration accel2d accel3d=no
        resolution x y
    input type=mouse|tablet|keyboard bus model
      +device
      driver +virtio
    hub type
      +device
    sound model
      +device
      codec type
      audio id
    audio id type=none|spice
      input|output mixingEngine fixedSettings voices bufferLength
        settings channels frequency format
    watchdog model action=reset|shutdown|poweroff|pause|none|inject-nmi
      +device
    panic model
      +device
    memballoon model autodeflate freePageReporting
      +device
      driver +virtio
      stats period
    rng model
      +device
      driver +virtio
      rate bytes period
      backend model=random|builtin #=(/dev/(u?random|hwrng))?
    tpm model
      +device
      backend type=emulator version persistent_state
        active_pcr_banks
          sha1|sha256|sha384|sha512
    memory model=dimm|virtio-mem|nvdimm|virtio-pmem access discard
      +device
      uuid #
      source
        path #=FILE
        pagesize|alignsize # unit
        pmem
      target
        size|block|requested|current # unit
        node #
        label
          size # unit
        readonly
    iommu model
      +device
      driver intremap caching_mode eim iotlb aw_bits
    nvram
      +device
"""
"""Each line: elements, the attributes that they may have, and `#` for their text; the lines below: what they may
contain. Several lines of one element add up. `name=PATTERN` limits a value to a regular expression or to what a word of
VALUES stands for, other values are words; `name!=PATTERN` requires the attribute if there is text. `*` is any element
of libvirt, ANY whatever there may be."""

INCLUDED = {
    "+device": """
address type domain bus slot function multifunction controller target unit port base reg iobase irq cssid ssid devno
  zpci uid fid
alias name
acpi index
boot order loadparm
""",
    "+virtio": "iommu ats packed page_per_vq",
}
"""The places of a device in the guest, and what all virtio devices can do."""

_LOOPBACK = r"localhost|127(\.[0-9]{1,3}){3}|::1"
_NAME = "[A-Za-z0-9][A-Za-z0-9._+-]*"
VALUES = {
    "CHARACTERS": "pty|null|spicevmc|spiceport|unix|vc|qemu-vdagent",
    "COUNT": "[0-9]{1,3}",
    "LOOPBACK": _LOOPBACK,
    "PORT": "-1|0|5[79][0-9]{2}",
    "VOLUME": f"{_NAME}/{_NAME}",
}


class Grant(NamedTuple):
    """A permission for the XML of VMs to reach into the node."""

    meaning: str
    opens: tuple[str, ...] = ()
    """Regular expressions: `path` is all of an element, `path@attribute` one attribute, `path@attribute=value` some
    values of it, `path@#` the text."""


_CHARACTER_DEVICE = "devices/(serial|parallel|console|channel|smartcard|redirdev)"
_QEMU = r"\{http://libvirt\.org/schemas/domain/qemu/1\.0\}.*"
GRANTS = {
    "block": Grant("disks on block devices of the node", ("devices/disk/source@dev",)),
    "bridges": Grant(
        "interfaces at bridges of the node that are no network of pvcd, with their VLANs and MTU",
        ("devices/interface/source@bridge", "devices/interface/(vlan|virtualport|mtu)"),
    ),
    "chardev": Grant(
        "character devices, their logs, random numbers and TPMs from files, devices, pipes and sockets of the node",
        (
            f"{_CHARACTER_DEVICE}@(type|tty)",
            f"{_CHARACTER_DEVICE}/(source|protocol|log)([/@].*)?",
            "devices/rng/backend@(type|#)",
            "devices/rng/backend@model=egd",
            "devices/rng/backend/(source|protocol|log)",
            "devices/tpm/backend@type=external",
            "devices/tpm/backend/source",
            "devices/graphics(/listen)?@socket",
        ),
    ),
    "commandline": Grant("arguments, environment and properties of QEMU", (_QEMU,)),
    "direct": Grant(
        "interfaces at network devices of the node (macvtap)",
        (
            "devices/interface@type=direct",
            "devices/interface@trustGuestRxFilters",
            "devices/interface/source@(dev|mode)",
            "devices/interface/virtualport",
        ),
    ),
    "display": Grant(
        "displays, graphics cards and sound of the node",
        (
            "devices/graphics@(type|display|xauth|fullscreen|address|p2p|multiUser|replaceUser)",
            "devices/graphics/gl",
            "devices/video/model/acceleration@(accel3d|rendernode)",
            "devices/video/driver@name",
            "devices/audio@.*",
            "devices/audio/(input|output)@.*",
        ),
    ),
    "ethernet": Grant(
        "interfaces made by the node's network programs: their scripts, names and device files",
        (
            "devices/interface@(type=ethernet|managed)",
            "devices/interface/(script|downscript|guest|ip|route)",
            "devices/interface/target@(dev|managed)",
            "devices/interface/backend",
        ),
    ),
    "files": Grant("disks, firmware, kernels and memory in files below the listed directories"),
    "filesystem": Grant("directories of the node as filesystems of the guest", ("devices/filesystem",)),
    "formats": Grant(
        "disks in other formats than raw: the disk's own header names further files, also outside of `files`",
        ("devices/disk/driver@type", "devices/disk/backingStore.*", "devices/disk/transient"),
    ),
    "hostdev": Grant(
        "devices of the node: PCI, USB, SCSI, NVMe, mediated, input, TPM and smart card readers",
        (
            "devices/hostdev",
            "devices/interface@(type=(hostdev|vdpa)|managed)",
            "devices/interface/source@(dev|mode)",
            "devices/interface/source/(address|vendor|product)",
            "devices/interface/teaming",
            "devices/disk@(type=nvme|device=lun|rawio|sgio)",
            "devices/disk/source@(type|namespace|managed)",
            "devices/disk/source/(address|reservations)",
            "devices/input@type",
            "devices/input/source",
            "devices/tpm/backend@type=passthrough",
            "devices/tpm/backend/device",
            "devices/smartcard@mode",
            "devices/smartcard/(certificate|database)",
        ),
    ),
    "launch-security": Grant("encrypted guests (AMD SEV, IBM Secure Execution)", ("launchSecurity",)),
    "network": Grant(
        "interfaces at networks of libvirt, and its packet filters",
        (
            "devices/interface@type=(network|internal)",
            "devices/interface/source@(network|portgroup|portid|name)",
            "devices/interface/(vlan|virtualport|filterref@filter)",
        ),
    ),
    "network-disks": Grant(
        "disks over the network, other than volumes of this cluster's Ceph: any protocol, host, user and secret",
        (
            "devices/disk/source@(protocol|name|query|tls|tlsHostname)",
            "devices/disk/source/(host|auth|cookies|ssl|identity|initiator|timeout|readahead|reconnect)",
            "devices/disk/auth",
        ),
    ),
    "secrets": Grant(
        "encrypted disks and TPMs, with secrets of the node's libvirt",
        ("devices/disk/(source/)?encryption", "devices/tpm/backend/encryption"),
    ),
    "seclabel": Grant("security labels", ("seclabel", "devices/.*/seclabel")),
    "shared-memory": Grant(
        "memory that other processes of the node share", ("devices/shmem", "memoryBacking/source@type=file")
    ),
    "sockets": Grant(
        "interfaces over TCP, UDP and multicast of the node",
        (
            "devices/interface@type=(client|server|mcast|udp)",
            "devices/interface/source@(address|port)",
            "devices/interface/source/local",
        ),
    ),
    "storage-pools": Grant("disks in storage pools of libvirt", ("devices/disk/source@(pool|volume|mode)",)),
    "tuning": Grant(
        "CPU pinning, scheduling, shares, NUMA placement, memory locking and limits, block I/O, resource groups",
        (
            "vcpu@(cpuset|placement)",
            "cputune/.*",
            "numatune|memtune|blkiotune|resource",
            "memoryBacking/locked",
            "devices/memory/source/nodemask",
        ),
    ),
    "user": Grant(
        "interfaces through the node's own network stack (SLIRP, passt)",
        (
            "devices/interface@type=user",
            "devices/interface/source@dev",
            "devices/interface/(backend|portForward|ip)",
        ),
    ),
    "vhostuser": Grant(
        "interfaces and disks at sockets of vhost-user programs",
        (
            "devices/(interface|disk)@type=vhostuser",
            "devices/(interface|disk)/source@(type|path|mode)",
            "devices/(interface|disk)/source/reconnect",
        ),
    ),
    "vnc-open": Grant(
        "VNC and SPICE at other addresses than loopback and at any port",
        ("devices/graphics@(listen|port|tlsPort|websocket)", "devices/graphics/listen@address"),
    ),
    "vsock": Grant("sockets between guest and node", ("devices/vsock",)),
    "everything": Grant("all of libvirt: such a VM can be as good as root on its node"),
}
"""pvc.vm.host_access: what each name opens. Where several open the same, the first is named in errors."""
