"""Tables: what the XML of a VM may have without any grant."""

from __future__ import annotations

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
        host socket=FILE
        identity
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
      backend logFile=FILE
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
    graphics keymap connected sharePolicy powerControl defaultMode xauth=FILE
      gl
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
    audio id type=none|spice path=FILE
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

WORD = r"[A-Za-z0-9._:,;+^ -]*"
"""The pattern of a value about which the table says nothing else: without a slash, it names no file elsewhere."""
_LOOPBACK = r"localhost|127(\.[0-9]{1,3}){3}|::1"
_NAME = "[A-Za-z0-9][A-Za-z0-9._+-]*"
VALUES = {
    "CHARACTERS": "pty|null|spicevmc|spiceport|unix|vc|qemu-vdagent",
    "COUNT": "[0-9]{1,3}",
    "LOOPBACK": _LOOPBACK,
    "PORT": "-1|0|5[79][0-9]{2}",
    "VOLUME": f"{_NAME}/{_NAME}",
}
