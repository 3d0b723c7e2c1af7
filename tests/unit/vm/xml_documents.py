"""Documents that need a grant of pvc.vm.host_access, each with its name, and documents that need none."""

from pvcd_plugins.sandbox.guest import EMULATOR

from .conftest import uuid_of

QEMU = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"


def document(devices: str = "", above: str = "", system: str = "", attributes: str = "") -> str:
    return (
        f"<domain type='qemu' {attributes}><name>web1</name><uuid>{uuid_of('web1')}</uuid>"
        f"<memory unit='MiB'>64</memory>\n{above}<os><type arch='x86_64' machine='pc'>hvm</type>\n{system}</os>"
        f"<devices>\n<emulator>{EMULATOR}</emulator>{devices}</devices></domain>"
    )


def disk(kind: str, source: str, more: str = "") -> str:
    return document(f"<disk type='{kind}'>{source}{more}<target dev='vda'/></disk>")


def rbd(more: str, attributes: str = "") -> str:
    return disk("network", f"<source protocol='rbd' name='vms/a'{attributes}>{more}</source>")


def interface(kind: str, more: str = "") -> str:
    return document(f"<interface type='{kind}'>{more}</interface>")


SECRET = f"<secret type='ceph' uuid='{uuid_of('secret')}'/>"
PASSPHRASE = f"<encryption format='luks'><secret type='passphrase' uuid='{uuid_of('secret')}'/></encryption>"
REFUSED = [
    ("block", disk("block", "<source dev='/dev/sda'/>")),
    ("bridges", interface("bridge", "<source bridge='br0'/>")),
    ("bridges", interface("bridge", "<source bridge='vmbr0'/>")),
    ("bridges", interface("bridge", "<source bridge='vmbr200'/><vlan><tag id='3'/></vlan>")),
    ("bridges", interface("bridge", "<source bridge='vmbr200'/><virtualport type='openvswitch'/>")),
    ("bridges", interface("bridge", "<source bridge='vmbr200'/><mtu size='68'/>")),
    ("chardev", document("<serial type='file'><source path='/etc/cron.d/x'/></serial>")),
    ("chardev", document("<serial type='pty'><log file='/etc/cron.d/x'/></serial>")),
    ("chardev", document("<serial type='dev'><source path='/dev/sda'/></serial>")),
    ("chardev", document("<parallel type='pipe'><source path='/run/x'/></parallel>")),
    ("chardev", document("<console type='tcp'><source mode='bind' host='0.0.0.0' service='23'/></console>")),
    ("chardev", document("<serial type='udp'><source mode='connect' host='10.0.0.1' service='23'/></serial>")),
    ("chardev", document("<serial type='stdio'/>")),
    ("chardev", document("<channel type='dbus'><source channel='a'/><target type='virtio'/></channel>")),
    (
        "chardev",
        document(
            "<channel type='unix'><source mode='bind' path='/run/docker.sock'/>"
            "<target type='virtio' name='a'/></channel>"
        ),
    ),
    ("chardev", document("<redirdev bus='usb' type='tcp'><source mode='connect' host='a' service='1'/></redirdev>")),
    (
        "chardev",
        document("<smartcard mode='passthrough' type='tcp'><source mode='bind' host='a' service='1'/></smartcard>"),
    ),
    ("chardev", document("<rng model='virtio'><backend model='random'>/dev/mem</backend></rng>")),
    (
        "chardev",
        document(
            "<rng model='virtio'><backend model='egd' type='unix'>"
            "<source mode='connect' path='/run/x'/></backend></rng>"
        ),
    ),
    (
        "chardev",
        document("<tpm><backend type='external'><source type='unix' mode='connect' path='/run/x'/></backend></tpm>"),
    ),
    ("chardev", document("<graphics type='vnc' socket='/run/vnc'/>")),
    ("chardev", document("<graphics type='spice'><listen type='socket' socket='/run/spice'/></graphics>")),
    (
        "commandline",
        document(attributes=QEMU).replace(
            "</domain>", "<qemu:commandline><qemu:arg value='-S'/></qemu:commandline></domain>"
        ),
    ),
    (
        "commandline",
        document(attributes=QEMU).replace(
            "</domain>", "<qemu:capabilities><qemu:del capability='a'/></qemu:capabilities></domain>"
        ),
    ),
    ("direct", interface("direct", "<source dev='eth0' mode='bridge'/>")),
    ("display", document("<graphics type='sdl' display=':0' xauth='/root/.Xauthority'/>")),
    ("display", document("<graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics>")),
    ("display", document("<graphics type='desktop'/>")),
    ("display", document("<graphics type='dbus' p2p='yes'/>")),
    ("display", document("<video><model type='virtio'><acceleration accel3d='yes'/></model></video>")),
    ("display", document("<video><driver name='vhostuser'/><model type='virtio'/></video>")),
    ("display", document("<audio id='1' type='file' path='/etc/cron.d/x'/>")),
    ("display", document("<audio id='1' type='oss'/>")),
    ("display", document("<audio id='1' type='alsa'><output dev='plughw:0,1'/></audio>")),
    ("everything", document("<audio id='1' type='spice'><input dev='/dev/dsp0'/></audio>")),
    ("ethernet", interface("ethernet", "<script path='/bin/evil'/>")),
    ("ethernet", interface("bridge", "<source bridge='vmbr200'/><script path='/bin/evil'/>")),
    ("ethernet", interface("bridge", "<source bridge='vmbr200'/><target dev='eth0'/>")),
    ("ethernet", interface("bridge", "<source bridge='vmbr200'/><backend tap='/dev/net/tun' vhost='/dev/sda'/>")),
    ("filesystem", document("<filesystem type='mount'><source dir='/'/><target dir='root'/></filesystem>")),
    (
        "filesystem",
        document(
            "<filesystem type='mount'><driver type='virtiofs'/><binary path='/bin/evil'/><source dir='/'/>"
            "<target dir='root'/></filesystem>"
        ),
    ),
    ("files", disk("file", "<source file='/etc/shadow'/>")),
    ("files", disk("dir", "<source dir='/etc'/>")),
    ("files", document(system="<loader readonly='yes'>/tmp/bios</loader>")),
    ("files", document(system="<nvram>/etc/shadow</nvram>")),
    ("files", document(system="<nvram template='/etc/shadow'/>")),
    ("files", document(system="<nvram type='file'><source file='/etc/shadow'/></nvram>")),
    ("files", document(system="<kernel>/boot/vmlinuz</kernel>")),
    ("files", document(system="<initrd>/etc/shadow</initrd>")),
    ("files", document(system="<dtb>/etc/shadow</dtb>")),
    ("files", document(system="<acpi><table type='slic'>/etc/shadow</table></acpi>")),
    ("files", interface("bridge", "<source bridge='vmbr200'/><rom file='/etc/shadow'/>")),
    ("files", document(above="<sysinfo type='fwcfg'><entry name='opt/a/b' file='/etc/shadow'/></sysinfo>")),
    (
        "files",
        document(
            "<memory model='nvdimm'><source><path>/etc/shadow</path></source>"
            "<target><size unit='MiB'>1</size></target></memory>"
        ),
    ),
    ("formats", disk("network", "<driver name='qemu' type='qcow2'/><source protocol='rbd' name='vms/a'/>")),
    (
        "formats",
        disk(
            "network",
            "<source protocol='rbd' name='vms/a'/>",
            "<backingStore type='file'><format type='raw'/><source file='/etc/shadow'/></backingStore>",
        ),
    ),
    ("formats", disk("network", "<source protocol='rbd' name='vms/a'/>", "<transient/>")),
    (
        "hostdev",
        document(
            "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
            "<address domain='0' bus='0' slot='2' function='0'/></source></hostdev>"
        ),
    ),
    (
        "hostdev",
        disk(
            "nvme",
            "<source type='pci' managed='yes' namespace='1'>"
            "<address domain='0' bus='1' slot='0' function='0'/></source>",
        ),
    ),
    (
        "hostdev",
        document("<disk type='network' device='lun'><source protocol='rbd' name='vms/a'/><target dev='sda'/></disk>"),
    ),
    ("hostdev", document("<input type='evdev'><source dev='/dev/input/event0'/></input>")),
    ("hostdev", document("<input type='passthrough' bus='virtio'><source evdev='/dev/input/event0'/></input>")),
    ("hostdev", document("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>")),
    ("hostdev", document("<smartcard mode='host'/>")),
    ("hostdev", interface("vdpa", "<source dev='/dev/vhost-vdpa-0'/>")),
    ("launch-security", document().replace("</domain>", "<launchSecurity type='s390-pv'/></domain>")),
    ("network", interface("network", "<source network='default'/>")),
    ("network", interface("bridge", "<source bridge='vmbr200'/><filterref filter='of-the-site'/>")),
    ("network-disks", disk("network", "<source protocol='nbd' name='a'><host name='10.0.0.1' port='1'/></source>")),
    ("network-disks", disk("network", "<source protocol='https' name='a'><host name='10.0.0.1' port='1'/></source>")),
    ("network-disks", rbd("<host name='10.0.0.1' port='6789'/>")),
    ("network-disks", rbd("<host transport='unix' socket='/run/x'/>")),
    ("network-disks", rbd(f"<auth username='admin'>{SECRET}</auth>")),
    ("network-disks", disk("network", f"<auth username='admin'>{SECRET}</auth><source protocol='rbd' name='vms/a'/>")),
    ("secrets", disk("network", "<source protocol='rbd' name='vms/a'/>", PASSPHRASE)),
    ("secrets", rbd(PASSPHRASE)),
    ("secrets", document(f"<tpm><backend type='emulator'><encryption secret='{uuid_of('secret')}'/></backend></tpm>")),
    ("seclabel", document().replace("</domain>", "<seclabel type='none'/></domain>")),
    (
        "seclabel",
        document().replace(
            "</domain>", "<seclabel type='static' model='dac'><label>root:root</label></seclabel></domain>"
        ),
    ),
    ("seclabel", rbd("<seclabel model='dac' relabel='no'/>")),
    ("shared-memory", document("<shmem name='a'><server path='/run/x'/></shmem>")),
    ("shared-memory", document(above="<memoryBacking><source type='file'/></memoryBacking>")),
    *(("sockets", interface(kind, "<source address='127.0.0.1' port='1'/>")) for kind in ("client", "server", "mcast")),
    (
        "sockets",
        interface("udp", "<source address='127.0.0.1' port='1'><local address='127.0.0.1' port='2'/></source>"),
    ),
    ("storage-pools", disk("volume", "<source pool='default' volume='a'/>")),
    ("tuning", document(above="<vcpu cpuset='0'>1</vcpu>")),
    ("tuning", document(above="<cputune><vcpusched scheduler='fifo' priority='99'/></cputune>")),
    ("tuning", document(above="<cputune><shares>262144</shares></cputune>")),
    ("tuning", document(above="<memoryBacking><locked/></memoryBacking>")),
    ("tuning", document(above="<resource><partition>/system</partition></resource>")),
    ("tuning", document(above="<blkiotune><weight>1000</weight></blkiotune>")),
    ("user", interface("user")),
    ("user", interface("user", "<backend type='passt' logFile='/etc/cron.d/x'/>")),
    ("vhostuser", interface("vhostuser", "<source type='unix' path='/run/x' mode='client'/>")),
    ("vhostuser", disk("vhostuser", "<source type='unix' path='/run/x'/>")),
    ("vnc-open", document("<graphics type='vnc' port='-1' listen='0.0.0.0'/>")),
    ("vnc-open", document("<graphics type='vnc' port='-1'><listen type='address' address='10.0.0.1'/></graphics>")),
    ("vnc-open", document("<graphics type='spice' port='2181'/>")),
    ("vsock", document("<vsock model='virtio'><cid auto='yes'/></vsock>")),
    ("everything", document(above="<bootloader>/bin/evil</bootloader>")),
    ("everything", document(above="<perf><event name='cmt' enabled='yes'/></perf>")),
    ("everything", document(above="<on_crash>coredump-destroy</on_crash>")),
    ("everything", document("<watchdog model='i6300esb' action='dump'/>")),
    ("everything", document("<lease><lockspace>a</lockspace><key>b</key><target path='/etc/shadow'/></lease>")),
    ("everything", rbd("<config file='/tmp/ceph.conf'/>")),
    ("everything", document(system="<smbios mode='host'/>")),
    ("everything", document(system="<init>/bin/sh</init>")),
    ("everything", document(system="<loader type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>")),
    ("everything", document(attributes="xmlns:x='urn:x' x:y='1'")),
    ("everything", document("<x:disk xmlns:x='urn:x' type='file'><source file='/etc/shadow'/></x:disk>")),
    ("everything", document("<future/>")),
    ("everything", document("<emulator>/bin/evil</emulator>")),
    ("everything", document("<channel type='unix'><target type='virtio' name='../../../../etc/x'/></channel>")),
    ("everything", document("<graphics type='vnc'><listen type='network' network='default'/></graphics>")),
    ("bridges", interface("bridge", "<source bridge=' vmbr200 '/>")),
    ("network-disks", disk("network", "<source protocol='rbd' name=' vms/a'/>")),
    ("vnc-open", document("<graphics type='vnc' listen=''/>")),
    ("everything", document(above="<iothreads>100000</iothreads>")),
    ("everything", document(above="<memoryBacking><allocation mode='immediate' threads='65000'/></memoryBacking>")),
    ("chardev", document("<serial><source path='/dev/sda'/><target port='0'/></serial>")),
    ("files", document("<disk><source file='/etc/shadow'/><target dev='vda'/></disk>")),
    ("chardev", document().replace("</domain>", "<devices><serial type='file'/></devices></domain>")),
    ("everything", document("<channel type='pty'><target type='guestfwd' address='10.0.2.1' port='4600'/></channel>")),
    ("everything", document("<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/shadow'/>")),
    ("everything", document(attributes="xml:base='/etc'")),
    ("everything", document("<graphics type='vnc' keymap='../../../etc/x'/>")),
    ("everything", document(above="<clock offset='timezone' timezone='/etc/shadow'/>")),
]
PATHS = [
    ("display", document("<audio id='1' type='file' path='/etc/cron.d/x'/>")),
    ("display", document("<audio id='1' type='file' path='x'/>")),
    ("display", document("<audio id='1' type='oss'><output dev='/dev/sda'/></audio>")),
    ("display", document("<audio id='1' type='alsa'><output dev='file:x'/></audio>")),
    ("display", document("<audio id='1' type='pulseaudio' serverName='unix:/run/x'/>")),
    ("display", document("<audio id='1' type='pipewire' runtimeDir='/run/x'/>")),
    ("display", document("<graphics type='sdl' display=':0' xauth='/root/.Xauthority'/>")),
    ("display", document("<graphics type='sdl' display='/run/x'/>")),
    ("display", document("<graphics type='dbus' address='unix:path=/run/x'/>")),
    ("display", document("<graphics type='egl-headless'><gl rendernode='/dev/sda'/></graphics>")),
    ("display", document("<graphics type='spice'><gl enable='yes' rendernode='/dev/dri/../sda'/></graphics>")),
    (
        "display",
        document("<video><model type='virtio'><acceleration rendernode='/dev/sda'/></model></video>"),
    ),
    ("user", interface("user", "<backend type='passt' logFile='/etc/cron.d/x'/>")),
    ("user", interface("user", "<backend tap='/dev/sda'/>")),
    ("user", interface("user", "<backend vhost='/dev/sda'/>")),
    ("user", interface("user", "<source dev='/dev/sda'/>")),
    ("ethernet", interface("ethernet", "<backend logFile='/etc/cron.d/x'/>")),
    ("network-disks", rbd("<host transport='unix' socket='/run/x'/>")),
    ("network-disks", rbd("<host name='/run/x'/>")),
    (
        "network-disks",
        disk(
            "network",
            "<source protocol='ssh' name='a'><host name='b'/><identity username='c' keyfile='/root/.ssh/id'/></source>",
        ),
    ),
    (
        "network-disks",
        disk("network", "<source protocol='ssh' name='a'><knownHosts path='/root/.ssh/known_hosts'/></source>"),
    ),
]
"""Documents that name a path of the node, each with a grant that is about something else."""
FREELY = [
    document(),
    document(above="<metadata><a:b xmlns:a='urn:a' path='/etc/shadow'><c>/etc</c></a:b></metadata>"),
    document(above="<description>/etc/shadow</description><title>a/b</title>"),
    document(above="<memoryBacking><hugepages/></memoryBacking><vcpu placement='static' current='1'>2</vcpu>"),
    document(above="<cputune><period>1000</period><quota>1000</quota></cputune><iothreads>2</iothreads>"),
    document(above="<clock offset='timezone' timezone='Europe/Berlin'><timer name='hpet' present='no'/></clock>"),
    document(above="<features><acpi/><hyperv mode='custom'><vapic state='on'/></hyperv><smm state='on'/></features>"),
    document(above="<cpu mode='host-model' check='partial'><feature name='vmx' policy='disable'/></cpu>"),
    document(system="<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"),
    document(system="<nvram template='/usr/share/OVMF/OVMF_VARS.fd'/><boot dev='hd'/><smbios mode='sysinfo'/>"),
    document(system="<kernel>/usr/share/qemu/vmlinuz</kernel><cmdline>init=/bin/sh</cmdline>"),
    rbd("<snapshot name='a'/>"),
    disk(
        "network",
        "<driver name='qemu' type='raw' cache='none'/><source protocol='rbd' name='vms/a'/>",
        "<backingStore/>",
    ),
    document("<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"),
    interface(
        "bridge",
        "<mac address='52:54:00:00:00:01'/><source bridge='vmbr200'/><target dev='vnet7'/><model type='virtio'/>",
    ),
    interface("bridge", "<source bridge='vmbr200'/><filterref filter='no-mac-spoofing'/>"),
    interface(
        "bridge",
        "<source bridge='vmbr200'/><filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.2'/>"
        "</filterref>",
    ),
    document("<serial type='pty'><protocol type='raw'/><target port='0'/></serial><console type='pty'/>"),
    document("<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"),
    document("<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"),
    document("<graphics type='vnc' port='-1' autoport='yes' passwd='a/b'/><video><model type='vga'/></video>"),
    document(
        "<graphics type='vnc' port='5901' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>"
    ),
    document("<graphics type='spice' autoport='yes'><listen type='address' address='::1'/></graphics>"),
    document(
        "<graphics type='spice'><listen type='socket'/></graphics><graphics type='vnc'><listen type='none'/></graphics>"
    ),
    document("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><memballoon model='virtio'/>"),
    document(
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><watchdog model='i6300esb' action='reset'/>"
    ),
    document(
        "<controller type='scsi' model='virtio-scsi'><driver queues='4' iommu='on'/>"
        "</controller><input type='tablet' bus='usb'/>"
    ),
]
